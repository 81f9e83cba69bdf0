//! How an answer is compressed: as its client asks for it, RFC 9110 section 12.5.3.
//!
//! What the client chose is in no answer beside a secret: tokens are not in the answers that are
//! compressed, and nothing of a request is repeated in them. So their sizes tell nobody a secret
//! (the BREACH attack).

use std::io::{self, Write as _};

use http::header::ACCEPT_ENCODING;
use http::{HeaderMap, HeaderValue};

/// A smaller answer is hardly sent sooner when it is compressed.
const COMPRESSED_BYTES_MIN: usize = 1 << 10;

/// The levels before the next one costs half as much again for a tenth of the bytes.
const GZIP_LEVEL: u32 = 2;
const ZSTD_LEVEL: i32 = 1;

/// A content coding of answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerCoding {
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

/// How a client wants its answers coded.
#[derive(Debug, Clone, Copy, Default)]
pub struct AskedCoding {
    best: Option<AnswerCoding>,
    is_small_too: bool,
}

/// An answer as it is sent.
#[derive(Debug)]
pub struct CodedAnswer<B> {
    /// Its body.
    pub body: B,
    /// How it is compressed, if it is.
    pub coding: Option<AnswerCoding>,
}

impl AskedCoding {
    /// What the request says. Without the header an answer is sent as it is, and also where the
    /// client accepts nothing that there is.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut weights = Weights::default();
        for value in headers.get_all(ACCEPT_ENCODING) {
            weights.read(value.to_str().unwrap_or_default());
        }
        let identity = weights.identity.or(weights.any);
        // As it is: accepted if nothing is said of it, but not preferred.
        let best = weights
            .best()
            .filter(|(_, weight)| *weight >= identity.unwrap_or_default());
        Self {
            best: best.map(|(coding, _)| coding),
            is_small_too: identity == Some(0),
        }
    }

    /// What an answer of so many bytes is compressed with.
    pub(super) fn coding_of(self, bytes: usize) -> Option<AnswerCoding> {
        let is_worth_it = bytes >= COMPRESSED_BYTES_MIN || self.is_small_too;
        self.best.filter(|_| is_worth_it)
    }

    /// Compresses an answer as asked.
    pub(super) fn code(self, bytes: Vec<u8>) -> CodedAnswer<Vec<u8>> {
        let coding = self.coding_of(bytes.len());
        let packed = coding.and_then(|coding| coding.pack(&bytes).ok());
        CodedAnswer {
            coding: coding.filter(|_| packed.is_some()),
            body: packed.unwrap_or(bytes),
        }
    }
}

impl AnswerCoding {
    /// As `Content-Encoding` names it.
    pub fn name(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        })
    }

    fn pack(self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip => {
                let packed = Vec::with_capacity(bytes.len() / 4);
                let level = flate2::Compression::new(GZIP_LEVEL);
                let mut encoder = flate2::write::GzEncoder::new(packed, level);
                encoder.write_all(bytes)?;
                encoder.finish()
            }
            Self::Zstd => zstd::bulk::compress(bytes, ZSTD_LEVEL),
        }
    }
}

/// How much a client wants each coding, in thousandths: RFC 9110 section 12.4.2.
#[derive(Debug, Default)]
struct Weights {
    gzip: Option<u16>,
    zstd: Option<u16>,
    identity: Option<u16>,
    /// All that are not named: `*`.
    any: Option<u16>,
}

impl Weights {
    /// What is malformed is left out.
    fn read(&mut self, list: &str) {
        for member in list.split(',') {
            let (coding, parameters) = match member.split_once(';') {
                Some((coding, weight)) => (coding, Some(weight)),
                None => (member, None),
            };
            let Some(weight) = parameters.map_or(Some(1_000), weight) else {
                continue;
            };
            let place = match coding.trim().to_ascii_lowercase().as_str() {
                "gzip" | "x-gzip" => &mut self.gzip,
                "zstd" => &mut self.zstd,
                "identity" => &mut self.identity,
                "*" => &mut self.any,
                _ => continue,
            };
            *place = Some(weight);
        }
    }

    /// The coding that is wanted most, of two equals zstd. `*` is taken for gzip, which everybody
    /// knows: who knows zstd names it.
    fn best(&self) -> Option<(AnswerCoding, u16)> {
        let gzip = self.gzip.or(self.any);
        let both = [(AnswerCoding::Gzip, gzip), (AnswerCoding::Zstd, self.zstd)];
        both.into_iter()
            .filter_map(|(coding, weight)| Some((coding, weight.filter(|weight| *weight > 0)?)))
            .max_by_key(|(_, weight)| *weight)
    }
}

/// `q=0.5` as 500: at most three digits after the point, and not more than 1.
fn weight(parameters: &str) -> Option<u16> {
    let (name, value) = parameters.trim().split_once('=')?;
    if !name.eq_ignore_ascii_case("q") {
        return None;
    }
    let (whole, digits) = value.split_once('.').unwrap_or((value, ""));
    let is_number = digits.len() <= 3 && digits.bytes().all(|digit| digit.is_ascii_digit());
    let thousandths: u16 = format!("{digits:0<3}").parse().ok()?;
    match whole {
        "0" if is_number => Some(thousandths),
        "1" if is_number && thousandths == 0 => Some(1_000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::AnswerCoding::{Gzip, Zstd};
    use super::*;

    fn asked_for(lines: &[&str], bytes: usize) -> Option<AnswerCoding> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(ACCEPT_ENCODING, line.parse().unwrap());
        }
        AskedCoding::of(&headers).coding_of(bytes)
    }

    #[test]
    fn a_client_gets_what_it_prefers() {
        let cases: [(&[&str], Option<AnswerCoding>); 36] = [
            (&[], None),
            (&[""], None),
            (&["gzip"], Some(Gzip)),
            (&["x-gzip"], Some(Gzip)),
            (&["GZip"], Some(Gzip)),
            (&["zstd"], Some(Zstd)),
            (&["gzip, zstd"], Some(Zstd)),
            (&["zstd, gzip"], Some(Zstd)),
            (&["gzip, deflate, br"], Some(Gzip)),
            (&["gzip, deflate, br, zstd"], Some(Zstd)),
            (&["gzip", "zstd"], Some(Zstd)),
            (&["gzip;q=1.0, zstd;q=0.5"], Some(Gzip)),
            (&["gzip ; q=0.8 , zstd ; Q=0.9"], Some(Zstd)),
            (&["gzip;q=0.001"], Some(Gzip)),
            (&["gzip;q=0"], None),
            (&["gzip;q=0.000"], None),
            (&["gzip;q=0, zstd;q=0.1"], Some(Zstd)),
            (&["deflate, br"], None),
            (&["identity"], None),
            (&["identity, gzip"], Some(Gzip)),
            (&["identity;q=1, gzip;q=0.5"], None),
            (&["identity;q=0.5, gzip;q=1.0, *;q=0"], Some(Gzip)),
            (&["*"], Some(Gzip)),
            (&["*;q=0"], None),
            (&["*;q=0, zstd"], Some(Zstd)),
            (&["*, gzip;q=0"], None),
            (&["*;q=0.5, zstd;q=0.4"], Some(Gzip)),
            (&["*;q=0.5, gzip;q=0.4"], None),
            (&["*;q=0.1, zstd;q=0.4"], Some(Zstd)),
            (&["identity;q=0"], None),
            (&["identity;q=0, gzip;q=0.1"], Some(Gzip)),
            // Malformed weights.
            (&["gzip;q=1.1"], None),
            (&["gzip;q=0.1234, zstd;q=0.1"], Some(Zstd)),
            (&["gzip;q=-1"], None),
            (&["gzip;level=9"], None),
            (&["gzip;q=, zstd;q=0.+5"], None),
        ];
        for (lines, expected) in cases {
            assert_eq!(
                asked_for(lines, COMPRESSED_BYTES_MIN),
                expected,
                "{lines:?}"
            );
        }
    }

    #[test]
    fn a_small_answer_is_left_as_it_is_where_that_is_accepted() {
        for (line, expected) in [
            ("gzip", None),
            ("*", None),
            ("gzip, identity;q=0.5", None),
            ("gzip, identity;q=0", Some(Gzip)),
            ("zstd, *;q=0", Some(Zstd)),
        ] {
            assert_eq!(
                asked_for(&[line], COMPRESSED_BYTES_MIN - 1),
                expected,
                "{line}"
            );
        }
    }

    #[test]
    fn what_is_packed_is_the_same_again() {
        let answer: String = (0..10_000).map(|at| format!("{{\"at\": {at}}}")).collect();
        for bytes in [b"".as_slice(), b"x", answer.as_bytes()] {
            let mut unpacked = Vec::new();
            let packed = Gzip.pack(bytes).unwrap();
            flate2::read::GzDecoder::new(&*packed)
                .read_to_end(&mut unpacked)
                .unwrap();
            assert_eq!(unpacked, bytes);
            let packed = Zstd.pack(bytes).unwrap();
            assert_eq!(zstd::stream::decode_all(&*packed).unwrap(), bytes);
        }
    }
}
