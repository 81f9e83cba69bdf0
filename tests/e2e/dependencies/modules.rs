//! The module graph of a crate, read from its source.
//!
//! A `use`, or a path in the code, is an edge from its module to the module that defines the name.
//! A re-export (`pub use`) is no edge: wherever its names are used, the edge leads to the module
//! that defines them. Items under `#[cfg(test)]` are ignored, and so are other crates.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::path::Path;

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::Visit;
use syn::{Attribute, ImplItem, Item, ItemUse, UseTree, Visibility};

/// Names of modules from the crate root; empty for the root itself.
type ModulePath = Vec<String>;

/// Longest chain of imports that is followed; it ends imports that refer to each other.
const IMPORT_DEPTH_MAX: usize = 8;

/// All modules of a library or a program.
pub(super) struct ModuleTree(BTreeMap<ModulePath, Module>);

#[derive(Default)]
struct Module {
    items: Vec<Item>,
    /// Names that are defined here.
    names: BTreeSet<String>,
    /// Imports by the name they have here.
    imports: BTreeMap<String, Import>,
    /// Paths of glob imports, as written.
    globs: Vec<Vec<String>>,
}

struct Import {
    /// As written.
    path: Vec<String>,
    is_reexport: bool,
}

/// Names that a module uses from another, with the line of the first use.
type Names = BTreeMap<String, usize>;

/// A cycle of modules, each with the names that it uses from the next.
pub(super) struct Cycle(Vec<(ModulePath, Names)>);

impl ModuleTree {
    /// Reads the root file of a crate, and the files of all its modules.
    pub(super) fn read(root: &Path) -> Self {
        let mut modules = Self(BTreeMap::new());
        let folder = root.parent().expect("a folder");
        modules.add(Vec::new(), parse(root), folder);
        modules
    }

    fn add(&mut self, path: ModulePath, mut items: Vec<Item>, folder: &Path) {
        items.retain(|item| !is_for_tests(attributes(item)));
        let mut module = Module::default();
        for item in &items {
            match item {
                Item::Use(item) => {
                    for leaf in leaves(&item.tree) {
                        module.import(leaf, is_public(&item.vis));
                    }
                }
                item => module.names.extend(name(item)),
            }
        }
        for item in &mut items {
            let Item::Mod(child) = item else { continue };
            let name = child.ident.to_string();
            let folder = folder.join(&name);
            let items = match child.content.take() {
                Some((_, items)) => items,
                None => parse(&file_of(&folder)),
            };
            let path = [&path[..], &[name]].concat();
            self.add(path, items, &folder);
        }
        module.items = items;
        self.0.insert(path, module);
    }

    /// Names of all public types, each with its module.
    pub(super) fn public_types(&self) -> impl Iterator<Item = (String, String)> {
        self.0.iter().flat_map(|(path, module)| {
            let names = module.items.iter().filter_map(public_type);
            names.map(move |name| (name, shown(path)))
        })
    }

    /// Cycles in the module graph; at least one through each module that is in any.
    pub(super) fn cycles(&self) -> Vec<Cycle> {
        let edges: BTreeMap<_, _> = self.0.keys().map(|path| (path, self.edges(path))).collect();
        let mut cycles: Vec<Cycle> = Vec::new();
        for start in self.0.keys() {
            let is_known = |cycle: &Cycle| cycle.0.iter().any(|(path, _)| path == start);
            if cycles.iter().any(is_known) {
                continue;
            }
            cycles.extend(cycle_through(start, &edges));
        }
        cycles
    }

    /// The modules that this one uses, with the names it uses.
    fn edges(&self, path: &ModulePath) -> BTreeMap<ModulePath, Names> {
        let mut uses = Uses {
            modules: self,
            path,
            found: BTreeMap::new(),
        };
        for item in &self.0[path].items {
            uses.visit_item(item);
        }
        uses.found.remove(path);
        uses.found
    }

    /// The module that defines the name of a path written in the module `at`; `None` for other
    /// crates.
    fn resolve(&self, at: &ModulePath, written: &[String], depth: usize) -> Option<ModulePath> {
        if depth == 0 {
            return None;
        }
        let (first, rest) = written.split_first()?;
        match first.as_str() {
            "crate" => self.resolve_from(&[], rest, depth),
            "self" => self.resolve_from(at, rest, depth),
            "super" => {
                let (_, parent) = at.split_last()?;
                let supers = rest.iter().take_while(|name| *name == "super").count();
                let parent = parent.get(..parent.len().checked_sub(supers)?)?;
                self.resolve_from(parent, &rest[supers..], depth)
            }
            first => {
                let module = &self.0[at];
                let child = [&at[..], &[first.to_owned()]].concat();
                if self.0.contains_key(&child) {
                    return self.resolve_from(&child, rest, depth);
                }
                let import = module.imports.get(first)?;
                self.resolve(at, &[&import.path[..], rest].concat(), depth - 1)
            }
        }
    }

    /// The same for a path relative to the module `from`.
    fn resolve_from(&self, from: &[String], names: &[String], depth: usize) -> Option<ModulePath> {
        let mut at = from.to_vec();
        let mut names = names.iter();
        let name = loop {
            let Some(name) = names.next() else {
                return Some(at);
            };
            at.push(name.clone());
            if !self.0.contains_key(&at) {
                at.pop();
                break name;
            }
        };
        let module = &self.0[&at];
        if module.names.contains(name) {
            return Some(at);
        }
        if let Some(import) = module.imports.get(name) {
            let rest: Vec<String> = names.cloned().collect();
            return self.resolve(&at, &[&import.path[..], &rest].concat(), depth - 1);
        }
        let globs = module.globs.iter();
        let mut in_globs = globs.filter_map(|glob| {
            let source = self.resolve(&at, glob, depth - 1)?;
            let is_there = self.0[&source].names.contains(name);
            is_there.then_some(source)
        });
        // A name that is defined by a macro.
        in_globs.next().or(Some(at))
    }
}

impl Module {
    fn import(&mut self, leaf: Leaf, is_reexport: bool) {
        match leaf.name {
            Some(name) => {
                let path = leaf.path;
                self.imports.insert(name, Import { path, is_reexport });
            }
            None => self.globs.push(leaf.path),
        }
    }
}

/// Collects the names that a module uses.
struct Uses<'a> {
    modules: &'a ModuleTree,
    path: &'a ModulePath,
    found: BTreeMap<ModulePath, Names>,
}

impl Uses<'_> {
    fn add(&mut self, written: &[String], line: usize) {
        let found = self.modules.resolve(self.path, written, IMPORT_DEPTH_MAX);
        if let (Some(module), Some(name)) = (found, written.last()) {
            let names = self.found.entry(module).or_default();
            names.entry(name.clone()).or_insert(line);
        }
    }

    /// A path in the code. If it begins with a private import, its `use` is the edge.
    fn add_code(&mut self, written: &[String], line: usize) {
        let Some(first) = written.first() else { return };
        let module = &self.modules.0[self.path];
        let is_private = |import: &Import| !import.is_reexport;
        let is_private_import = module.imports.get(first).is_some_and(is_private);
        let is_keyword = matches!(first.as_str(), "crate" | "self" | "super");
        // A single `self` is a value.
        if !is_private_import && (written.len() > 1 || !is_keyword) {
            self.add(written, line);
        }
    }

    fn add_tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let (mut colons, mut line) = (0, 0);
        for token in tokens {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.add_code(&std::mem::take(&mut path), line);
                    }
                    path.push(ident.to_string());
                    (colons, line) = (0, ident.span().start().line);
                }
                other => {
                    self.add_code(&std::mem::take(&mut path), line);
                    colons = 0;
                    if let TokenTree::Group(group) = other {
                        self.add_tokens(group.stream());
                    }
                }
            }
        }
        self.add_code(&path, line);
    }
}

impl<'ast> Visit<'ast> for Uses<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        if !is_for_tests(attributes(item)) && !matches!(item, Item::Mod(_)) {
            syn::visit::visit_item(self, item);
        }
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        let is_test = matches!(item, ImplItem::Fn(item) if is_for_tests(&item.attrs));
        if !is_test {
            syn::visit::visit_impl_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        if !is_public(&item.vis) {
            for leaf in leaves(&item.tree) {
                self.add(&leaf.path, item.use_token.span.start().line);
            }
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names = path.segments.iter();
        let names: Vec<String> = names.map(|segment| segment.ident.to_string()).collect();
        if path.leading_colon.is_none() {
            let line = path.segments[0].ident.span().start().line;
            self.add_code(&names, line);
        }
        syn::visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        self.visit_path(&called.path);
        self.add_tokens(called.tokens.clone());
    }

    // Paths in `pub(super)` and in attributes are no edges.
    fn visit_visibility(&mut self, _: &'ast Visibility) {}
    fn visit_attribute(&mut self, _: &'ast Attribute) {}
}

type Edges<'a> = BTreeMap<&'a ModulePath, BTreeMap<ModulePath, Names>>;

/// The shortest cycle through a module.
fn cycle_through(start: &ModulePath, edges: &Edges<'_>) -> Option<Cycle> {
    let mut previous: BTreeMap<&ModulePath, &ModulePath> = BTreeMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(at) = queue.pop_front() {
        for next in edges[at].keys() {
            if next == start {
                return Some(trace_back(start, at, &previous, edges));
            }
            if !previous.contains_key(next) {
                previous.insert(next, at);
                queue.push_back(next);
            }
        }
    }
    None
}

fn trace_back(
    start: &ModulePath,
    end: &ModulePath,
    previous: &BTreeMap<&ModulePath, &ModulePath>,
    edges: &Edges<'_>,
) -> Cycle {
    let mut cycle = Vec::new();
    let (mut at, mut next) = (end, start);
    loop {
        cycle.push((at.clone(), edges[at][next].clone()));
        if at == start {
            break;
        }
        (at, next) = (previous[at], at);
    }
    cycle.reverse();
    Cycle(cycle)
}

impl fmt::Display for Cycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (path, names) in &self.0 {
            let names = names
                .iter()
                .map(|(name, line)| format!("{name} (line {line})"));
            let names: Vec<String> = names.collect();
            write!(f, "{} --{}--> ", shown(path), names.join(", "))?;
        }
        let first = self
            .0
            .first()
            .map_or_else(String::new, |(path, _)| shown(path));
        f.write_str(&first)
    }
}

fn shown(path: &ModulePath) -> String {
    [&["crate".to_owned()], &path[..]].concat().join("::")
}

/// `FOLDER.rs` or `FOLDER/mod.rs`.
fn file_of(folder: &Path) -> std::path::PathBuf {
    let file = folder.with_extension("rs");
    if file.exists() {
        file
    } else {
        folder.join("mod.rs")
    }
}

fn parse(file: &Path) -> Vec<Item> {
    let text = std::fs::read_to_string(file);
    let text = text.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let parsed = syn::parse_file(&text);
    let parsed = parsed.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    parsed.items
}

/// One name of a `use`; a glob has no name.
struct Leaf {
    path: Vec<String>,
    name: Option<String>,
}

fn leaves(tree: &UseTree) -> Vec<Leaf> {
    fn walk(tree: &UseTree, mut path: Vec<String>, found: &mut Vec<Leaf>) {
        match tree {
            UseTree::Path(tree) => {
                path.push(tree.ident.to_string());
                walk(&tree.tree, path, found);
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    walk(tree, path.clone(), found);
                }
            }
            UseTree::Glob(_) => found.push(Leaf { path, name: None }),
            UseTree::Name(tree) => {
                let ident = tree.ident.to_string();
                if ident != "self" {
                    path.push(ident);
                }
                let name = path.last().cloned();
                found.push(Leaf { path, name });
            }
            UseTree::Rename(tree) => {
                let ident = tree.ident.to_string();
                if ident != "self" {
                    path.push(ident);
                }
                let name = Some(tree.rename.to_string());
                found.push(Leaf { path, name });
            }
        }
    }
    let mut found = Vec::new();
    walk(tree, Vec::new(), &mut found);
    found
}

fn is_public(visibility: &Visibility) -> bool {
    !matches!(visibility, Visibility::Inherited)
}

/// Whether there is a `#[cfg(test)]`, possibly with more conditions.
fn is_for_tests(attributes: &[Attribute]) -> bool {
    let mut conditions = attributes.iter().filter_map(|attribute| {
        let list = attribute.meta.require_list().ok()?;
        list.path.is_ident("cfg").then(|| list.tokens.clone())
    });
    conditions.any(mentions_test)
}

fn mentions_test(tokens: TokenStream) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(ident) => ident == "test",
        TokenTree::Group(group) => mentions_test(group.stream()),
        TokenTree::Punct(_) | TokenTree::Literal(_) => false,
    })
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn name(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(ident.to_string())
}

fn public_type(item: &Item) -> Option<String> {
    let (visibility, ident) = match item {
        Item::Enum(item) => (&item.vis, &item.ident),
        Item::Struct(item) => (&item.vis, &item.ident),
        Item::Trait(item) => (&item.vis, &item.ident),
        Item::Type(item) => (&item.vis, &item.ident),
        Item::Union(item) => (&item.vis, &item.ident),
        _ => return None,
    };
    is_public(visibility).then(|| ident.to_string())
}
