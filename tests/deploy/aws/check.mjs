// Checks deploy/aws without a cloud: HashiCorp's own parser and formatter (compiled to WebAssembly), and
// whether everything that is named exists and everything that exists is used.
//
//   node check.mjs              prints what is wrong; exit code 1 if anything is
//   node check.mjs --facts      prints, as JSON, what the boot test needs: policies, the settings that
//                               user data gets, the store's rights
//   node check.mjs --write      formats
import { createRequire } from "node:module";
import fs from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

const root = path.join(path.dirname(fileURLToPath(import.meta.url)), "../../..");
const require = createRequire(path.join(root, "target/tools/node/index.js"));
const { parse } = require("@cdktf/hcl2json");
const { format } = require("@cdktf/hcl-tools");

const MODULES = ["deploy/aws", "deploy/aws/examples/complete"];
// EC2's limit on user data, before base64.
const USER_DATA_BYTES_MAX = 16 * 1024;
const PROVIDERS = "aws|random";

const problems = [];
const problem = (where, what) => problems.push(`${where}: ${what}`);
const read = (file) => fs.readFileSync(path.join(root, file), "utf8");

// ---- One module: its files, and what they declare

async function load(folder) {
    const files = fs.readdirSync(path.join(root, folder)).filter((name) => name.endsWith(".tf"));
    const module = { folder, declared: new Map(), blocks: {}, texts: new Map(), variables: {}, locals: {} };
    for (const name of files) {
        const file = `${folder}/${name}`;
        const text = read(file);
        module.texts.set(file, text);
        let tree;
        try {
            tree = await parse(name, text);
        } catch (error) {
            problem(file, error);
            continue;
        }
        const formatted = await format(text);
        if (formatted !== text) {
            if (process.argv[2] === "--write") fs.writeFileSync(path.join(root, file), formatted);
            else problem(file, "is not in canonical format: node tests/deploy/aws/check.mjs --write");
        }
        declare(module, file, tree);
    }
    return module;
}

function declare(module, file, tree) {
    const add = (name) => {
        if (module.declared.has(name)) problem(file, `${name} is declared twice`);
        module.declared.set(name, file);
    };
    for (const [name, [variable]] of Object.entries(tree.variable ?? {})) {
        add(`var.${name}`);
        module.variables[name] = variable;
        if (!variable.description || !variable.type) problem(file, `var.${name} has no description or no type`);
    }
    for (const [name, [output]] of Object.entries(tree.output ?? {})) {
        if (!output.description) problem(file, `output ${name} has no description`);
    }
    for (const locals of tree.locals ?? []) {
        for (const [name, value] of Object.entries(locals)) {
            add(`local.${name}`);
            module.locals[name] = value;
        }
    }
    for (const [kind, prefix] of [["resource", ""], ["data", "data."]]) {
        for (const [type, named] of Object.entries(tree[kind] ?? {})) {
            for (const [name, [block]] of Object.entries(named)) {
                add(`${prefix}${type}.${name}`);
                module.blocks[`${prefix}${type}.${name}`] = block;
            }
        }
    }
    for (const name of Object.keys(tree.module ?? {})) add(`module.${name}`);
}

// ---- Names

function checkNames(module) {
    const used = new Set();
    const pattern = new RegExp(
        `(?<![\\w.$-])(?:(var|local|module)\\.(\\w+)|(data\\.)?((?:${PROVIDERS})_\\w+)\\.(\\w+))`, "g");
    for (const [file, text] of module.texts) {
        for (const line of text.split("\n")) {
            const code = line.replace(/^\s*#.*/, "");
            for (const [, scope, name, data, type, resource] of code.matchAll(pattern)) {
                const full = scope ? `${scope}.${name}` : `${data ?? ""}${type}.${resource}`;
                used.add(full);
                if (!module.declared.has(full)) problem(file, `${full} is not declared`);
            }
        }
    }
    for (const [name, file] of module.declared) {
        const counts = /^(var|local|data)\./.test(name);
        if (counts && !used.has(name)) problem(file, `${name} is not used`);
    }
}

// ---- Calls of the module by its example

function checkCalls(module, callee) {
    for (const [file, text] of module.texts) {
        const call = text.match(/^module "\w+" \{\n([\s\S]*?)^\}/m)?.[1];
        if (!call) continue;
        const given = [...call.matchAll(/^ {2}(\w+)\s+=/gm)].map(([, name]) => name);
        const known = [...Object.keys(callee.variables), "source", "depends_on"];
        for (const name of given) if (!known.includes(name)) problem(file, `the module has no variable ${name}`);
        for (const [name, variable] of Object.entries(callee.variables)) {
            if (!("default" in variable) && !given.includes(name)) problem(file, `the module needs ${name}`);
        }
        for (const [, name] of text.matchAll(/module\.\w+\.(\w+)/g)) {
            if (![...callee.texts.values()].some((text) => text.includes(`output "${name}"`))) {
                problem(file, `the module has no output ${name}`);
            }
        }
    }
}

// ---- User data

const settingsOf = (text, name) => {
    const start = text.indexOf(`${name} = {`);
    const block = text.slice(start, text.indexOf("\n  }\n", start));
    return [...block.matchAll(/^\s+([A-Z][A-Z0-9_]+)\s+=/gm)].map(([, key]) => key);
};

function checkUserData(settings) {
    for (const [script, given] of Object.entries(settings)) {
        const file = `deploy/aws/user-data/${script}`;
        const text = read(file);
        const used = new Set([...text.matchAll(/BOOT_([A-Z0-9_]+)/g)].map(([, name]) => name));
        const optional = new Set([...text.matchAll(/\$\{BOOT_([A-Z0-9_]+):-/g)].map(([, name]) => name));
        for (const name of used) {
            if (!given.includes(name) && !optional.has(name)) problem(file, `nobody sets BOOT_${name}`);
        }
        for (const name of given) if (!used.has(name)) problem(file, `does not use BOOT_${name}`);
        // The script beside it is in there as base64.
        const other = script === "ca.sh" ? "mint.sh" : "lifecycle.sh";
        const bytes = text.length + (read(`deploy/aws/user-data/${other}`).length * 4) / 3 + 200 * given.length;
        if (bytes > USER_DATA_BYTES_MAX) problem(file, `${bytes} bytes of user data are too many`);
    }
    for (const file of ["ca.tf", "groups.tf"]) {
        const text = read(`deploy/aws/${file}`);
        if (/random_password|\.result\b|store_password\.value/.test(text)) problem(file, "a secret in user data");
    }
}

// ---- Documentation

function checkReadme(module) {
    const text = read("deploy/aws/README.md");
    for (const name of Object.keys(module.variables)) {
        if (!text.includes(`\`${name}\``)) problem("deploy/aws/README.md", `does not tell of the variable ${name}`);
    }
}

const [module, example] = await Promise.all(MODULES.map(load));
const settings = {
    "member.sh": settingsOf(read("deploy/aws/groups.tf"), "member_settings"),
    "ca.sh": settingsOf(read("deploy/aws/ca.tf"), "ca_settings"),
};
if (process.argv[2] === "--facts") {
    console.log(JSON.stringify({
        settings,
        member: module.blocks["data.aws_iam_policy_document.member"],
        ca: module.blocks["data.aws_iam_policy_document.ca"],
        store_access: module.locals.store_access,
    }));
} else {
    checkNames(module);
    checkNames(example);
    checkCalls(example, module);
    checkUserData(settings);
    checkReadme(module);
    for (const text of problems) console.error(text);
    console.error(problems.length ? `${problems.length} problems` : "deploy/aws: names, format and user data are in order");
    process.exit(problems.length ? 1 : 0);
}
process.exit(0);
