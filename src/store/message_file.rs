//! The file of a held message. It explains itself, so that the mail outlives the index and this program:
//!
//! ```text
//! gatepost held 1
//! sha256 <64 hexadecimal digits: the digest of everything below this line>
//! {"id":…}                      the facts, JSON in one line
//! From: …                       the message, byte for byte, to the end of the file
//! ```
//!
//! A file is written once and never changed.

use std::{
    fmt::Write as _,
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::fs::FileExt,
    path::Path,
};

use aws_lc_rs::digest::{Context, Digest, SHA256};

use super::{Held, StoreError, at, disk::Disk};

const VERSION_LINE: &str = "gatepost held 1\n";
const DIGEST_WORD: &str = "sha256 ";
const DIGEST_DIGITS: usize = 64;
/// The facts take at most so many octets.
const FACTS_LIMIT: usize = 4 << 20;
/// How much of a message is in memory at once.
const CHUNK: usize = 64 << 10;

/// Writes `body` with its facts into a new file and syncs its content; not yet its name.
pub(super) fn write(
    path: &Path,
    disk: &dyn Disk,
    held: &Held,
    body: &mut dyn Read,
) -> Result<(), StoreError> {
    let facts = facts(held)?;
    let mut file = disk.create_new(path).map_err(at("create", path))?;
    let mut digest = Context::new(&SHA256);
    let mut append = |bytes: &[u8]| file.write_all(bytes).map_err(at("write", path));

    append(opening(&"0".repeat(DIGEST_DIGITS)).as_bytes())?;
    append(&facts)?;
    digest.update(&facts);
    let (mut buffer, mut len) = (vec![0; CHUNK], 0);
    loop {
        let chunk = match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => buffer.get(..count).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(StoreError::Body(error)),
        };
        len += chunk.len() as u64;
        if len > held.len {
            break;
        }
        append(chunk)?;
        digest.update(chunk);
    }
    if len != held.len {
        return Err(StoreError::Length { declared: held.len, actual: len });
    }
    file.overwrite(0, opening(&hexadecimal(&digest.finish())).as_bytes()).map_err(at("write", path))?;
    file.sync().map_err(at("sync", path))
}

/// Reads the facts, without looking at the message.
pub(super) fn read_facts(path: &Path) -> Result<Held, StoreError> {
    let mut reader = BufReader::new(File::open(path).map_err(at("open", path))?);
    read_opening(path, &mut reader)?;
    parse_facts(path, &read_line(path, &mut reader, FACTS_LIMIT)?)
}

/// Opens the message, once every octet was found to be what was written.
pub(super) fn open_body(path: &Path) -> Result<Body, StoreError> {
    let file = File::open(path).map_err(at("open", path))?;
    let mut reader = BufReader::with_capacity(CHUNK, &file);
    let expected = read_opening(path, &mut reader)?;
    let facts = read_line(path, &mut reader, FACTS_LIMIT)?;
    let held = parse_facts(path, &facts)?;

    let mut digest = Context::new(&SHA256);
    digest.update(&facts);
    let mut len = 0;
    loop {
        let chunk = reader.fill_buf().map_err(at("read", path))?;
        if chunk.is_empty() {
            break;
        }
        digest.update(chunk);
        let count = chunk.len();
        len += count as u64;
        reader.consume(count);
    }
    if len != held.len {
        return Err(damaged(path, format!("the message has {len} octets instead of {}", held.len)));
    }
    if hexadecimal(&digest.finish()) != expected {
        return Err(damaged(path, "its content does not have the digest it had when it was written"));
    }
    let start = opening(&expected).len() as u64 + facts.len() as u64;
    Ok(Body { file, start, len, position: 0 })
}

/// The octets of a held message, found whole when it was opened.
#[derive(Debug)]
pub struct Body {
    file: File,
    start: u64,
    len: u64,
    position: u64,
}

impl Body {
    /// The length of the message in octets.
    #[expect(clippy::len_without_is_empty, reason = "an empty message is no special case")]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Reads octets of the message from `offset` on; none at its end and beyond.
    ///
    /// # Errors
    /// The file cannot be read, or has become shorter.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let wanted = buf.len().min(left);
        let Some(buf) = buf.get_mut(..wanted).filter(|buf| !buf.is_empty()) else { return Ok(0) };
        match self.file.read_at(buf, self.start + offset)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => Ok(count),
        }
    }
}

impl Read for Body {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.read_at(self.position, buf)?;
        self.position += count as u64;
        Ok(count)
    }
}

fn facts(held: &Held) -> Result<Vec<u8>, StoreError> {
    let mut facts = serde_json::to_vec(held).map_err(|error| StoreError::Body(error.into()))?;
    facts.push(b'\n');
    if facts.len() > FACTS_LIMIT {
        return Err(StoreError::FactsTooLong { len: facts.len(), limit: FACTS_LIMIT });
    }
    Ok(facts)
}

fn opening(digest: &str) -> String {
    format!("{VERSION_LINE}{DIGEST_WORD}{digest}\n")
}

/// Reads the first two lines; the digest they tell.
fn read_opening(path: &Path, reader: &mut impl BufRead) -> Result<String, StoreError> {
    let first = read_line(path, reader, VERSION_LINE.len())?;
    if first != VERSION_LINE.as_bytes() {
        let first = String::from_utf8_lossy(&first);
        return Err(damaged(path, format!("it begins with {first:?} instead of {VERSION_LINE:?}")));
    }
    let second = read_line(path, reader, DIGEST_WORD.len() + DIGEST_DIGITS + 1)?;
    let digest = std::str::from_utf8(&second).ok().and_then(|line| line.strip_prefix(DIGEST_WORD));
    match digest.and_then(|digest| digest.strip_suffix('\n')) {
        Some(digest) if digest.len() == DIGEST_DIGITS => Ok(digest.to_owned()),
        _ => Err(damaged(path, "its second line is not a digest")),
    }
}

fn parse_facts(path: &Path, line: &[u8]) -> Result<Held, StoreError> {
    serde_json::from_slice(line).map_err(|error| damaged(path, format!("its facts cannot be read: {error}")))
}

/// Reads up to and with the next line end, or `limit` octets.
fn read_line(path: &Path, reader: &mut impl BufRead, limit: usize) -> Result<Vec<u8>, StoreError> {
    let mut line = Vec::new();
    reader.take(limit as u64).read_until(b'\n', &mut line).map_err(at("read", path))?;
    Ok(line)
}

fn damaged(path: &Path, problem: impl Into<String>) -> StoreError {
    StoreError::Damaged { path: path.to_owned(), problem: problem.into() }
}

fn hexadecimal(digest: &Digest) -> String {
    digest.as_ref().iter().fold(String::new(), |mut text, octet| {
        let _ = write!(text, "{octet:02x}");
        text
    })
}
