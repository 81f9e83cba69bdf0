//! Reads files and stdin.

use std::io::{BufRead, BufReader, stdin};
use std::path::Path;

use anyhow::Context as _;
use lizmon_protocol::name::NodeName;

/// Reads a file; the error names it.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Reads one name per line, with the line's number; `#` starts a comment; the file `-` is stdin.
pub(crate) fn node_names(file: &Path) -> anyhow::Result<Vec<(NodeName, usize)>> {
    let shown = file.display();
    let reader: Box<dyn BufRead> = if file == Path::new("-") {
        Box::new(stdin().lock())
    } else {
        let opened = std::fs::File::open(file).with_context(|| format!("cannot read {shown}"))?;
        Box::new(BufReader::new(opened))
    };
    let mut names = Vec::new();
    for (index, line) in reader.lines().enumerate() {
        let line = line.with_context(|| format!("cannot read {shown}"))?;
        let name = line.split('#').next().unwrap_or_default().trim();
        if !name.is_empty() {
            let (name, number) = (name.parse(), index + 1);
            let name = name.with_context(|| format!("{shown}, line {number}"))?;
            names.push((name, number));
        }
    }
    Ok(names)
}
