//! Reads a file of profiles.
//!
//! ```toml
//! default = "home"
//!
//! [profiles.home]
//! receiver = "https://rx1.example:8443"
//! cert = "ada.crt"
//! key = "ada.key"
//! ca = "root.crt"
//! ```
//!
//! A relative path is one below the file's folder.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::error::{ProfileFault, ProfileFileError};
use super::{ConnectionProfile, local_file};
use crate::receiver_url::parse_receiver;

/// The longest file: far more than any has, so that a wrong path (/dev/zero) ends soon.
const FILE_BYTES_MAX: u64 = 1 << 20;

const TEXT: &str = "a text in quotation marks";
const TABLE: &str = "a table: [profiles.NAME]";
const KEYS: &str = "receiver, cert, key, ca and ca-url";

/// The profiles of a person.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ProfileFile {
    pub(crate) path: PathBuf,
    pub(crate) default: Option<String>,
    /// Where the value of `default` stands in the text.
    pub(super) default_span: Option<Range<usize>>,
    pub(crate) profiles: BTreeMap<String, ConnectionProfile>,
    /// The file as it is; `None` if there is none.
    pub(super) text: Option<String>,
}

impl ProfileFile {
    /// Reads the file. One that is not there has no profiles.
    pub(crate) fn read(path: &Path) -> Result<Self, ProfileFileError> {
        match text_of(path)? {
            Some(text) => Self::parse(path, text),
            None => Ok(Self {
                path: path.to_owned(),
                ..Self::default()
            }),
        }
    }

    pub(super) fn parse(path: &Path, text: String) -> Result<Self, ProfileFileError> {
        let reader = Reader { path, text: &text };
        let mut file = Self {
            path: path.to_owned(),
            ..Self::default()
        };
        let mut default_line = 0;
        for (key, value) in reader.table()?.get_ref() {
            match (key.get_ref().as_ref(), value.get_ref()) {
                ("default", DeValue::String(name)) => {
                    file.default = Some(name.to_string());
                    file.default_span = Some(value.span());
                    default_line = value.span().start;
                }
                ("profiles", DeValue::Table(profiles)) => {
                    for (name, profile) in profiles {
                        let DeValue::Table(table) = profile.get_ref() else {
                            let key = format!("profiles.{}", name.get_ref());
                            return Err(reader.kind(key, TABLE, &profile.span()));
                        };
                        let profile = reader.profile(table)?;
                        file.profiles.insert(name.get_ref().to_string(), profile);
                    }
                }
                ("default", _) => {
                    return Err(reader.kind("default".to_owned(), TEXT, &value.span()));
                }
                ("profiles", _) => {
                    return Err(reader.kind("profiles".to_owned(), TABLE, &value.span()));
                }
                (other, _) => {
                    return Err(reader.unknown(other, "default and profiles", &key.span()));
                }
            }
        }
        if let Some(name) = &file.default
            && !file.profiles.contains_key(name)
        {
            let fault = ProfileFault::NoDefault {
                name: name.clone(),
                known: file.known(),
            };
            return Err(reader.at(default_line, fault));
        }
        file.text = Some(text);
        Ok(file)
    }

    /// The profile of this name.
    pub(crate) fn named(&self, name: &str) -> Result<&ConnectionProfile, ProfileFileError> {
        self.profiles
            .get(name)
            .ok_or_else(|| ProfileFileError::Unknown {
                name: name.to_owned(),
                file: self.path.clone(),
                known: self.known(),
            })
    }

    fn known(&self) -> String {
        let names: Vec<&str> = self.profiles.keys().map(String::as_str).collect();
        match names[..] {
            [] => "there are none".to_owned(),
            _ => format!("there are {}", names.join(", ").escape_debug()),
        }
    }
}

/// The profile of a folder of certificates, if it has one.
pub(crate) fn read_local(certs: &Path) -> Result<Option<ConnectionProfile>, ProfileFileError> {
    let path = local_file(certs);
    let Some(text) = text_of(&path)? else {
        return Ok(None);
    };
    let reader = Reader {
        path: &path,
        text: &text,
    };
    let table = reader.table()?;
    reader.profile(table.get_ref()).map(Some)
}

fn text_of(path: &Path) -> Result<Option<String>, ProfileFileError> {
    let unreadable = |source| ProfileFileError::Unreadable {
        file: path.to_owned(),
        source,
    };
    let file = match File::open(path) {
        Ok(file) => file,
        // No file, or something that is no folder where its folder should be.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(unreadable(error)),
    };
    let mut text = String::new();
    let read = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
    match read.map_err(unreadable)? {
        length if length as u64 > FILE_BYTES_MAX => {
            Err(unreadable(std::io::Error::from(ErrorKind::FileTooLarge)))
        }
        _ => Ok(Some(text)),
    }
}

struct Reader<'f> {
    path: &'f Path,
    text: &'f str,
}

impl<'f> Reader<'f> {
    fn table(&self) -> Result<toml::Spanned<DeTable<'f>>, ProfileFileError> {
        DeTable::parse(self.text).map_err(|error| {
            let start = error.span().unwrap_or_default().start;
            let said = error.message().replace('\n', ", ");
            // The key that stands in this line, for those who do not count lines.
            let line = self.text.get(start..).map_or("", |_| self.line_text(start));
            let text = match line.split_once('=') {
                Some((key, _)) => format!("{}: {said}", key.trim().escape_debug()),
                None => said,
            };
            self.at(start, ProfileFault::Syntax(text))
        })
    }

    fn profile(&self, table: &DeTable<'_>) -> Result<ConnectionProfile, ProfileFileError> {
        let folder = self.path.parent().unwrap_or(Path::new(""));
        let mut profile = ConnectionProfile::default();
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            if !["receiver", "cert", "key", "ca", "ca-url"].contains(&name) {
                return Err(self.unknown(name, KEYS, &key.span()));
            }
            let DeValue::String(text) = value.get_ref() else {
                return Err(self.kind(name.to_owned(), TEXT, &value.span()));
            };
            let path = Some(folder.join(text.as_ref()));
            match name {
                "cert" => profile.cert = path,
                "key" => profile.key = path,
                "ca" => profile.ca = path,
                _ => {
                    let url = parse_receiver(text).map_err(|source| {
                        let key = name.to_owned();
                        self.at(value.span().start, ProfileFault::Receiver { key, source })
                    });
                    match name {
                        "ca-url" => profile.ca_url = Some(url?),
                        _ => profile.receiver = Some(url?),
                    }
                }
            }
        }
        Ok(profile)
    }

    fn line_text(&self, at: usize) -> &str {
        let from = self.text[..at].rfind('\n').map_or(0, |end| end + 1);
        self.text[from..].lines().next().unwrap_or_default()
    }

    fn at(&self, byte: usize, fault: ProfileFault) -> ProfileFileError {
        let before = &self.text.as_bytes()[..byte.min(self.text.len())];
        ProfileFileError::Line {
            file: self.path.to_owned(),
            line: before.iter().filter(|byte| **byte == b'\n').count() + 1,
            fault,
        }
    }

    fn unknown(&self, key: &str, known: &'static str, span: &Range<usize>) -> ProfileFileError {
        let key = key.to_owned();
        self.at(span.start, ProfileFault::UnknownKey { key, known })
    }

    fn kind(&self, key: String, expected: &'static str, span: &Range<usize>) -> ProfileFileError {
        self.at(span.start, ProfileFault::Kind { key, expected })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<ProfileFile, ProfileFileError> {
        ProfileFile::parse(Path::new("/home/ada/config.toml"), text.to_owned())
    }

    #[test]
    fn paths_are_below_the_files_folder() {
        let text = "default = \"a\"\n[profiles.a]\nreceiver = \"https://r1:8443/api/perf\"\ncert = \"ada.crt\"\nca = \"/etc/root.crt\"\n";
        let file = parsed(text).unwrap();
        let expected = ConnectionProfile {
            receiver: Some("https://r1:8443".parse().unwrap()),
            cert: Some("/home/ada/ada.crt".into()),
            key: None,
            ca: Some("/etc/root.crt".into()),
            ca_url: None,
        };
        assert_eq!(file.named("a").unwrap(), &expected);
        assert_eq!(file.default.as_deref(), Some("a"));
    }

    #[test]
    fn a_wrong_file_is_told_with_line_and_key() {
        let cases = [
            ("default = 5\n", ":1: default is a text in quotation marks"),
            (
                "default = \"b\"\n[profiles.a]\n",
                ":1: default names \"b\", and there is no such profile: there are a",
            ),
            (
                "\n[profiles.a]\nrecevier = \"https://r1\"\n",
                ":3: there is no key \"recevier\" here; there are receiver, cert, key, ca and ca-url",
            ),
            (
                "[profiles.a]\nreceiver = \"http://r1\"\n",
                ":2: receiver: `http://r1` does not start with https://",
            ),
            ("[profiles.a]\ncert = [\"a\"]\n", ":2: cert is a text"),
            ("profiles = 1\n", ":1: profiles is a table"),
            ("[profiles]\na = 1\n", ":2: profiles.a is a table"),
            ("[profile.a]\n", ":1: there is no key \"profile\" here"),
            ("[profiles.a]\ncert = \"a\n", ":2: cert: invalid"),
            (
                "[profiles.a]\ncert = \"a\"\ncert = \"b\"\n",
                ":3: cert: duplicate",
            ),
            ("[profiles.a\n", ":1: "),
        ];
        for (text, expected) in cases {
            let said = parsed(text).unwrap_err().to_string();
            let expected = format!("/home/ada/config.toml{expected}");
            assert!(said.starts_with(&expected), "{text:?}: {said}");
            assert_eq!(said.lines().count(), 1, "{text:?}: {said}");
        }
    }

    #[test]
    fn no_file_has_no_profiles() {
        let folder = tempfile::tempdir().unwrap();
        for path in ["none.toml", "no/where.toml"] {
            let file = ProfileFile::read(&folder.path().join(path)).unwrap();
            assert!(file.profiles.is_empty() && file.default.is_none());
        }
        assert!(ProfileFile::read(folder.path()).is_err());
        assert_eq!(read_local(folder.path()).unwrap(), None);
    }
}
