//! Writes profiles: whole files, atomically, for their owner alone, and never over what is there.

use std::fs;
use std::path::{Path, PathBuf};

use lizmon_pki::atomic_file::{self, Access};

use super::error::ProfileFileError;
use super::file::ProfileFile;
use super::{ConnectionProfile, local_file, read_local};

/// What became of a profile that was to be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Added {
    /// It is there now, and used unless another is named.
    AsDefault,
    /// It is there now, and another is the default.
    Beside,
    /// There was one of this name, which stays as it is.
    WasThere,
}

/// Adds a profile to a person's file, unless it has one of this name. The first one becomes the
/// default.
pub(crate) fn add(
    path: &Path,
    name: &str,
    profile: &ConnectionProfile,
) -> Result<Added, ProfileFileError> {
    let file = ProfileFile::read(path)?;
    if file.profiles.contains_key(name) {
        return Ok(Added::WasThere);
    }
    let becomes_default = file.default.is_none();
    let mut text = file.text.clone().unwrap_or_default();
    if !text.is_empty() {
        text.push_str(if text.ends_with('\n') { "\n" } else { "\n\n" });
    }
    text.push_str(&format!("[profiles.{}]\n", quoted(name)));
    text.push_str(&lines(profile));
    let with_default = becomes_default.then(|| with_default(&file, text.clone(), name));
    let new = ProfileFile {
        default: with_default
            .as_ref()
            .map_or(file.default, |_| Some(name.to_owned())),
        ..file
    };
    let mut expected = new.profiles;
    expected.insert(name.to_owned(), profile.clone());
    write(
        path,
        with_default.unwrap_or(text),
        &expected,
        new.default.as_deref(),
    )?;
    Ok(match becomes_default {
        true => Added::AsDefault,
        false => Added::Beside,
    })
}

impl ProfileFile {
    /// Makes this profile the default.
    pub(crate) fn set_default(&self, name: &str) -> Result<(), ProfileFileError> {
        self.named(name)?;
        let text = self.text.clone().unwrap_or_default();
        let text = with_default(self, text, name);
        write(&self.path, text, &self.profiles, Some(name))
    }
}

/// The text with this default. A key outside of tables can only stand before them.
fn with_default(file: &ProfileFile, mut text: String, name: &str) -> String {
    match &file.default_span {
        Some(span) => text.replace_range(span.clone(), &quoted(name)),
        None => text.insert_str(0, &format!("default = {}\n\n", quoted(name))),
    }
    text
}

/// Writes the text if it says exactly this.
fn write(
    path: &Path,
    text: String,
    profiles: &std::collections::BTreeMap<String, ConnectionProfile>,
    default: Option<&str>,
) -> Result<(), ProfileFileError> {
    let is_meant = ProfileFile::parse(path, text.clone())
        .is_ok_and(|read| read.profiles == *profiles && read.default.as_deref() == default);
    if !is_meant {
        let file = path.to_owned();
        return Err(ProfileFileError::OtherForm { file });
    }
    write_file(path, &text)
}

fn write_file(path: &Path, text: &str) -> Result<(), ProfileFileError> {
    let file = || path.to_owned();
    if fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink()) {
        return Err(ProfileFileError::Link { file: file() });
    }
    let written = make_folder(path.parent().unwrap_or(Path::new(".")))
        .and_then(|()| atomic_file::write(path, text.as_bytes(), Access::Secret));
    written.map_err(|source| ProfileFileError::Unwritable {
        file: file(),
        source,
    })
}

/// Creates the folder with mode 0700, unless it exists.
fn make_folder(folder: &Path) -> std::io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// Writes `profile.toml` of a folder of certificates, whose files are named from there. One with
/// other files is its owner's, and stays as it is. Returns the file if it was written.
pub(crate) fn write_local(
    certs: &Path,
    profile: &ConnectionProfile,
) -> Result<Option<PathBuf>, ProfileFileError> {
    let path = local_file(certs);
    let differs_in_urls = |found: &ConnectionProfile| {
        ConnectionProfile {
            receiver: profile.receiver.clone(),
            ca_url: profile.ca_url.clone(),
            ..found.clone()
        } == *profile
    };
    match read_local(certs)? {
        Some(found) if found == *profile || !differs_in_urls(&found) => return Ok(None),
        _ => (),
    }
    let below = |path: &Option<PathBuf>| {
        let path = path.as_deref()?;
        Some(path.strip_prefix(certs).unwrap_or(path).to_owned())
    };
    let written = ConnectionProfile {
        receiver: profile.receiver.clone(),
        ca_url: profile.ca_url.clone(),
        cert: below(&profile.cert),
        key: below(&profile.key),
        ca: below(&profile.ca),
    };
    let text = format!(
        "# How lizctl reaches the receiver here. `lizctl up` sets receiver; files are in this folder.\n{}",
        lines(&written)
    );
    write_file(&path, &text)?;
    Ok(Some(path))
}

fn lines(profile: &ConnectionProfile) -> String {
    let pairs = profile.pairs().into_iter();
    let lines = pairs.filter_map(|(key, value)| Some(format!("{key} = {}\n", quoted(&value?))));
    lines.collect()
}

/// A TOML basic string. JSON's are, but for DEL, which makes the file unreadable: what is written is
/// read back first.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(folder: &Path) -> ConnectionProfile {
        ConnectionProfile {
            receiver: Some("https://r1:8443".parse().unwrap()),
            cert: Some(folder.join("a.crt")),
            key: Some(folder.join("a\"b\\c\n.key")),
            ca: Some("/root.crt".into()),
            ca_url: None,
        }
    }

    #[test]
    fn profiles_are_added_and_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config/lizmon/config.toml");
        let first = profile(folder.path());
        assert_eq!(add(&path, "ada", &first).unwrap(), Added::AsDefault);
        assert_eq!(
            add(&path, "ada", &ConnectionProfile::default()).unwrap(),
            Added::WasThere
        );
        assert_eq!(
            add(&path, "a.b", &ConnectionProfile::default()).unwrap(),
            Added::Beside
        );
        let file = ProfileFile::read(&path).unwrap();
        assert_eq!(file.named("ada").unwrap(), &first);
        assert_eq!(file.named("a.b").unwrap(), &ConnectionProfile::default());
        assert_eq!(file.default.as_deref(), Some("ada"));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode(&path), 0o600);
            assert_eq!(mode(path.parent().unwrap()), 0o700);
        }
    }

    #[test]
    fn a_persons_own_text_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        let check = |before: &str, expected: &str| {
            fs::write(&path, before).unwrap();
            ProfileFile::read(&path).unwrap().set_default("b").unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), expected);
        };
        check(
            "# mine\ndefault = 'a' # for now\n[profiles.a]\n[profiles.b]\n",
            "# mine\ndefault = \"b\" # for now\n[profiles.a]\n[profiles.b]\n",
        );
        check("[profiles.b]\n", "default = \"b\"\n\n[profiles.b]\n");
        assert!(ProfileFile::read(&path).unwrap().set_default("c").is_err());
        // An inline table cannot be added to.
        let inline = "profiles = { a = {} }\n";
        fs::write(&path, inline).unwrap();
        let refused = add(&path, "b", &ConnectionProfile::default()).unwrap_err();
        assert!(
            matches!(refused, ProfileFileError::OtherForm { .. }),
            "{refused}"
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), inline);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        std::os::unix::fs::symlink("elsewhere.toml", &path).unwrap();
        let refused = add(&path, "a", &ConnectionProfile::default()).unwrap_err();
        assert!(
            matches!(refused, ProfileFileError::Link { .. }),
            "{refused}"
        );
        assert!(!folder.path().join("elsewhere.toml").exists());
    }

    #[test]
    fn the_local_profile_follows_the_receiver_unless_it_is_anothers() {
        let folder = tempfile::tempdir().unwrap();
        let certs = folder.path();
        let mut ours = profile(certs);
        assert!(write_local(certs, &ours).unwrap().is_some());
        assert_eq!(read_local(certs).unwrap().unwrap(), ours);
        let text = fs::read_to_string(local_file(certs)).unwrap();
        assert!(text.contains("cert = \"a.crt\"\n"), "{text}");
        assert!(write_local(certs, &ours).unwrap().is_none(), "as it was");
        ours.receiver = Some("https://r1:8444".parse().unwrap());
        assert!(write_local(certs, &ours).unwrap().is_some());
        fs::write(local_file(certs), "cert = \"mine.crt\"\n").unwrap();
        assert!(write_local(certs, &ours).unwrap().is_none());
        let text = fs::read_to_string(local_file(certs)).unwrap();
        assert_eq!(text, "cert = \"mine.crt\"\n");
    }
}
