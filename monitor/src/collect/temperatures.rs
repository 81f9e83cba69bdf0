//! How warm the sensors are.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::collector::{CollectContext, Collector, CollectorSpec, CollectorStart, LabelSpec};
use super::failure::CollectError;
use super::names;
use super::periodic::{PeriodicReading, ReadingPlan};
use super::readings::Readings;

/// The collector.
pub(super) static TEMPERATURES: CollectorSpec = CollectorSpec {
    name: "temperatures",
    labels: &[LabelSpec {
        label: "temperature:{sensor}",
        unit: "degrees C",
        source: "`/sys/class/hwmon`",
        meaning: "of `CHIP/SENSOR`, such as `coretemp.0/Core 0`; missing where the sensor is off or reports a fault, and below -100 and above 250",
    }],
    labels_max: 16,
    more_labels_a_day: 0,
    start: |_: &CollectorStart<'_>| {
        // Some drivers ask a disk or a slow bus, and may never answer.
        let read = || sensors(Path::new(HWMON));
        Ok(Box::new(Temperatures(PeriodicReading::start(&PLAN, read)?)))
    },
};

const HWMON: &str = "/sys/class/hwmon";

static PLAN: ReadingPlan = ReadingPlan {
    name: "temperatures",
    path: HWMON,
    missing: "sensor",
    // Heat changes slowly, and asking wakes disks and buses.
    every: Duration::from_secs(10),
    age_max: Duration::from_secs(60),
};

/// Sensors that are not connected show numbers beyond these.
const PLAUSIBLE: std::ops::RangeInclusive<f64> = -100.0..=250.0;

struct Temperatures(PeriodicReading<Vec<Sensor>>);

/// A sensor, and what it shows in degrees Celsius.
#[derive(Debug, Clone, PartialEq)]
struct Sensor {
    name: Vec<u8>,
    degrees: f64,
}

impl Collector for Temperatures {
    fn collect(
        &mut self,
        context: &CollectContext,
        readings: &mut Readings<'_>,
    ) -> Result<(), CollectError> {
        for sensor in self.0.latest(context.monotonic)?.iter() {
            readings.push_or_note(names::label("temperature:", &sensor.name), sensor.degrees);
        }
        Ok(())
    }
}

/// Those that show a plausible temperature, in the order of their names. `None` where there is no
/// sensor at all, as in most virtual machines.
fn sensors(hwmon: &Path) -> Option<Vec<Sensor>> {
    let chips = fs::read_dir(hwmon).ok()?.filter_map(Result::ok);
    let mut found: Vec<Sensor> = chips.flat_map(|chip| sensors_of(&chip.path())).collect();
    if found.is_empty() {
        return None;
    }
    found.retain(|sensor| PLAUSIBLE.contains(&sensor.degrees));
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Some(found)
}

/// `temp1_input` in thousandths of a degree, `temp1_label`: `Documentation/hwmon/sysfs-interface.rst`
/// of the kernel. One that cannot be read, because its device sleeps, is passed over.
fn sensors_of(chip: &Path) -> Vec<Sensor> {
    let Ok(files) = fs::read_dir(chip) else {
        return Vec::new();
    };
    let chip_name = chip_name(chip);
    let sensor = |path: PathBuf| {
        let file = path.file_name()?.to_str()?;
        let number = file.strip_prefix("temp")?.strip_suffix("_input")?;
        number.parse::<u32>().ok()?;
        let says = |what: &str| trimmed(fs::read(chip.join(format!("temp{number}_{what}"))).ok());
        // Not connected, or off: it shows 0, or whatever is at its pins.
        let is_off = says("fault").is_some_and(|fault| fault != b"0")
            || [says("enable"), says("type")].contains(&Some(b"0".to_vec()));
        if is_off {
            return None;
        }
        let degrees = fs::read_to_string(&path).ok()?.trim().parse::<i64>().ok()? as f64 / 1_000.0;
        let label = says("label").unwrap_or_else(|| format!("temp{number}").into_bytes());
        let name = [&chip_name[..], b"/", &label].concat();
        Some(Sensor { name, degrees })
    };
    let paths = files.filter_map(Result::ok).map(|file| file.path());
    paths.filter_map(sensor).collect()
}

/// The chip's own name, and its device's, as there may be several of a kind. The numbers of hwmon
/// may be others after the next boot.
fn chip_name(chip: &Path) -> Vec<u8> {
    use std::os::unix::ffi::OsStrExt;
    let name = trimmed(fs::read(chip.join("name")).ok()).unwrap_or_else(|| b"unnamed".to_vec());
    let device = fs::read_link(chip.join("device")).ok();
    match device.as_deref().and_then(Path::file_name) {
        None => name,
        Some(device) if device.as_bytes().starts_with(&name) => device.as_bytes().to_vec(),
        Some(device) => [&name[..], b"-", device.as_bytes()].concat(),
    }
}

fn trimmed(bytes: Option<Vec<u8>>) -> Option<Vec<u8>> {
    let trimmed = bytes?.trim_ascii().to_vec();
    (!trimmed.is_empty()).then_some(trimmed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn sensors_of_every_kind() {
        let sys = tempfile::tempdir().unwrap();
        let root = sys.path().join("hwmon");
        assert_eq!(sensors(&root), None);
        let chip = |at: usize, device: Option<&str>, files: &[(&str, &[u8])]| {
            let chip = root.join(format!("hwmon{at}"));
            fs::create_dir_all(&chip).unwrap();
            for (file, text) in files {
                fs::write(chip.join(file), text).unwrap();
            }
            if let Some(device) = device {
                symlink(format!("../../../{device}"), chip.join("device")).unwrap();
            }
        };
        chip(
            0,
            Some("coretemp.0"),
            &[
                ("name", b"coretemp\n"),
                ("temp1_input", b"41000\n"),
                ("temp1_label", b"Package id 0\n"),
                ("temp1_fault", b"0\n"),
                ("temp1_enable", b"1\n"),
                ("temp1_type", b"6\n"),
                ("temp2_input", b"39500\n"),
                ("temp2_max", b"100000\n"),
                ("fan1_input", b"1200\n"),
            ],
        );
        chip(
            1,
            Some("nvme0"),
            &[
                ("name", b"nvme\n"),
                ("temp1_input", b"36850\n"),
                ("temp1_label", b"Composite\n"),
            ],
        );
        chip(
            2,
            Some("0000:00:18.3"),
            &[
                ("name", b"k10temp\n"),
                ("temp1_input", b"-5000\n"),
                ("temp1_label", b"Tctl\n"),
            ],
        );
        // Of bug reports of other monitors: not connected, or switched off; no number; no name.
        chip(
            3,
            None,
            &[
                ("name", b"it8720\n"),
                ("temp1_input", b"-128000\n"),
                ("temp2_input", b"255500\n"),
                ("temp3_input", b"x\n"),
                ("tempx_input", b"1\n"),
                ("temp4_input", b"0\n"),
                ("temp4_fault", b"1\n"),
                ("temp5_input", b"-55000\n"),
                ("temp5_type", b"0\n"),
                ("temp6_input", b"30000\n"),
                ("temp6_enable", b"0\n"),
                ("temp7_input", b"3892313987\n"),
                ("temp8_input", b"-273150\n"),
            ],
        );
        chip(
            4,
            None,
            &[("temp1_input", b"20000\n"), ("temp1_label", b"\xff\n")],
        );
        let found: Vec<_> = sensors(&root)
            .unwrap()
            .into_iter()
            .map(|sensor| {
                (
                    names::label("", &sensor.name).unwrap().to_string(),
                    sensor.degrees,
                )
            })
            .collect();
        let expected = [
            ("coretemp.0/Package id 0", 41.0),
            ("coretemp.0/temp2", 39.5),
            ("k10temp-0000:00:18.3/Tctl", -5.0),
            ("nvme0/Composite", 36.85),
            ("unnamed/\\xff", 20.0),
        ];
        assert_eq!(
            found,
            expected.map(|(name, degrees)| (name.to_owned(), degrees))
        );
    }
}
