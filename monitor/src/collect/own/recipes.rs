//! The recipes of `docs/monitor.md` do what they promise. There are no such disks and no GPU here:
//! programs of the same names print what the real ones do. Their forms are those of smartctl 7.3
//! and of the driver 550, and the numbers are made up.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, ExitStatus};

use super::lines::parse;

const DOCUMENTATION: &str = include_str!("../../../../docs/monitor.md");

/// A disk that is well, with the attributes that the recipe reads and one that it does not.
const ATA: &str = r#"{"json_format_version":[1,0],"smartctl":{"version":[7,3],"argv":["smartctl"],"exit_status":0},
"device":{"name":"/dev/sda","info_name":"/dev/sda [SAT]","type":"sat","protocol":"ATA"},"smart_status":{"passed":true},
"ata_smart_attributes":{"revision":16,"table":[
{"id":1,"name":"Raw_Read_Error_Rate","value":200,"worst":200,"thresh":51,"when_failed":"","raw":{"value":0,"string":"0"}},
{"id":5,"name":"Reallocated_Sector_Ct","value":200,"worst":200,"thresh":140,"when_failed":"","raw":{"value":8,"string":"8"}},
{"id":194,"name":"Temperature_Celsius","value":117,"worst":106,"thresh":0,"when_failed":"","raw":{"value":33,"string":"33"}}]},
"power_cycle_count":1,"temperature":{"current":33}}"#;
/// One that says that it fails: bit 3 of the exit status.
const FAILING: &str = r#"{"smartctl":{"version":[7,3],"exit_status":8},"device":{"name":"/dev/sdb","type":"scsi","protocol":"SCSI"},
"smart_status":{"passed":false,"scsi":{"asc":93,"ascq":16}},"temperature":{"current":61,"drive_trip":68}}"#;
/// One that sleeps is not asked.
const ASLEEP: &str = r#"{"smartctl":{"version":[7,3],"messages":[{"string":"Device is in STANDBY mode, exit(2)","severity":"information"}],"exit_status":2},
"device":{"name":"/dev/sdc","info_name":"/dev/sdc [SAT]","type":"sat","protocol":"ATA"}}"#;
const NVME: &str = r#"{"smartctl":{"version":[7,3],"exit_status":0},"device":{"name":"/dev/nvme0","type":"nvme","protocol":"NVMe"},
"smart_status":{"passed":true,"nvme":{"value":0}},"nvme_smart_health_information_log":{"critical_warning":0,"temperature":38,
"available_spare":100,"percentage_used":4,"temperature_sensors":[38,45]},"temperature":{"current":38}}"#;

/// The script below this heading.
fn recipe(heading: &str) -> &'static str {
    let section = DOCUMENTATION
        .split_once(&format!("#### {heading}\n"))
        .unwrap()
        .1;
    let script = section.split_once("```\n#!/bin/sh\n").unwrap().1;
    script.split_once("\n```\n").unwrap().0
}

fn program(folder: &Path, name: &str, script: &str) {
    let file = folder.join(name);
    fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(file, PermissionsExt::from_mode(0o755)).unwrap();
}

fn run(script: &str, programs: &Path) -> (ExitStatus, Vec<u8>) {
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let output = Command::new("sh")
        .args(["-c", script])
        .env("PATH", path)
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    (output.status, output.stdout)
}

#[track_caller]
fn check(output: &[u8], expected: &[(&str, f64)]) {
    let values = parse(output, None);
    assert_eq!(values.fault, None);
    let pairs = values.pairs.iter();
    let found: BTreeMap<_, _> = pairs
        .map(|(label, value)| (String::from_utf8_lossy(label).into_owned(), *value))
        .collect();
    let expected: BTreeMap<_, _> = expected
        .iter()
        .map(|(label, value)| ((*label).to_owned(), *value))
        .collect();
    assert_eq!(found, expected);
}

/// From bug reports of other tools: a disk that sleeps was shown as failed.
#[test]
fn what_disks_say_of_themselves() {
    let folder = tempfile::tempdir().unwrap();
    let [dev, own, said] = ["dev", "own", "said"].map(|name| folder.path().join(name));
    for folder in [&dev, &own, &said] {
        fs::create_dir(folder).unwrap();
    }
    for (disk, json) in [
        ("sda", ATA),
        ("sdb", FAILING),
        ("sdc", ASLEEP),
        ("nvme0", NVME),
        ("vda", ""),
    ] {
        fs::write(dev.join(disk), "").unwrap();
        fs::write(said.join(disk), json).unwrap();
    }
    // As the real one, with another exit code where something is wrong.
    let smartctl = format!(
        "[ \"$1 $2 $3 $4\" = '--json=c --health --attributes --nocheck=standby' ] || exit 1
         cat {}/\"${{5##*/}}\"; [ \"${{5##*/}}\" = sda ]",
        said.display()
    );
    program(folder.path(), "smartctl", &smartctl);
    let script = recipe("SMART")
        .replace("/dev/", &format!("{}/", dev.display()))
        .replace("/var/lib/lizmon-own", &own.display().to_string());
    assert!(run(&script, folder.path()).0.success());
    check(
        &fs::read(own.join("smart.txt")).unwrap(),
        &[
            ("smart-failed:sda", 0.0),
            ("smart-temperature:sda", 33.0),
            ("smart-reallocated:sda", 8.0),
            ("smart-failed:sdb", 1.0),
            ("smart-temperature:sdb", 61.0),
            ("smart-failed:nvme0", 0.0),
            ("smart-temperature:nvme0", 38.0),
            ("smart-used-percent:nvme0", 4.0),
        ],
    );
}

/// From bug reports of other tools: what a GPU does not support is no number, in several spellings,
/// and a driver that is not loaded says so on standard output.
#[test]
fn what_gpus_say_of_themselves() {
    let folder = tempfile::tempdir().unwrap();
    let gpus =
        "printf '0, 97, 30241, 71\\n1, [N/A], 512, 44\\n2, [Not Supported], 1, [Unknown Error]\\n'";
    program(folder.path(), "nvidia-smi", gpus);
    let (status, output) = run(recipe("GPU"), folder.path());
    assert!(status.success());
    check(
        &output,
        &[
            ("gpu-busy:0", 97.0),
            ("gpu-memory-mib:0", 30_241.0),
            ("gpu-temperature:0", 71.0),
            ("gpu-memory-mib:1", 512.0),
            ("gpu-temperature:1", 44.0),
            ("gpu-memory-mib:2", 1.0),
        ],
    );
    let away = "echo 'NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver.'; exit 9";
    program(folder.path(), "nvidia-smi", away);
    assert_eq!(run(recipe("GPU"), folder.path()).0.code(), Some(9));
}
