//! A dump that was made elsewhere, by whatever pg_dump, as it lies in a file or a folder.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};

use super::archive;
use super::load::Chunks;
use super::toc::Toc;
use super::toc_reader::Layout;
use crate::error::{Error, Result};

/// Bytes that are passed on at once, and how many such wait.
const CHUNK: usize = 256 << 10;
const WAITING: usize = 4;
/// A tar file says what it is behind so many bytes, and its first member begins behind its header.
const TAR_MAGIC: std::ops::Range<usize> = 257..262;
const TAR_HEADER: usize = 512;
const TOC: &str = "toc.dat";

/// A dump that somebody else made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DumpFile {
    path: PathBuf,
    form: DumpForm,
    packing: Packing,
    bytes: u64,
}

/// What `pg_dump` was told to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DumpForm {
    /// SQL for psql: its default, `-Fp`.
    Script,
    /// `-Fc`.
    Custom,
    /// `-Ft`.
    Tar,
    /// `-Fd`.
    Directory,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packing {
    Plain,
    Gzip,
    Zstd,
}

impl DumpFile {
    /// Looks what it is, by what is in it and whatever it is called.
    ///
    /// # Errors
    /// `NotFound` when there is none; `InvalidInput` `dump_unknown` for what is no dump, or one in two wrappings.
    pub async fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        blocking(move || Self::recognise(path)).await
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it is.
    pub fn form(&self) -> DumpForm {
        self.form
    }

    /// Its name, without the folders that it is in.
    pub fn name(&self) -> String {
        self.path
            .file_name()
            .map_or_else(|| self.path.display().to_string(), |name| name.to_string_lossy().into_owned())
    }

    /// What it takes on its disk.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether pg_restore can read it where it is.
    pub(super) fn is_plain(&self) -> bool {
        self.packing == Packing::Plain
    }

    /// All of it, unpacked, from its beginning.
    pub(super) fn read(&self) -> FileChunks {
        let (sender, output) = mpsc::channel(WAITING);
        let file = self.clone();
        FileChunks { output, reader: Some(spawn_blocking(move || file.pass(&sender))) }
    }

    /// The table of contents of an archive, and whether its data are compressed.
    ///
    /// # Errors
    /// `Failed` `archive_damaged`, and those of reading it.
    pub(super) async fn toc(&self) -> Result<(Toc, bool)> {
        let file = self.clone();
        blocking(move || file.read_toc()).await
    }

    fn recognise(path: PathBuf) -> Result<Self> {
        let failed = |error| Error::from_io(format!("cannot read {}", path.display()), error);
        let about = fs::metadata(&path).map_err(failed)?;
        if about.is_dir() {
            if !path.join(TOC).is_file() {
                return Err(unknown(&path, "it is a folder without a toc.dat"));
            }
            let bytes =
                fs::read_dir(&path).map_err(failed)?.filter_map(|file| Some(file.ok()?.metadata().ok()?.len())).sum();
            return Ok(Self { path, form: DumpForm::Directory, packing: Packing::Plain, bytes });
        }
        if !about.is_file() {
            // It is read twice, and first to its end.
            return Err(unknown(&path, "it is neither a file nor a folder"));
        }
        let mut file = Self { path, form: DumpForm::Script, packing: Packing::Plain, bytes: about.len() };
        file.packing = match file.head()?.as_slice() {
            [0x1f, 0x8b, ..] => Packing::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Packing::Zstd,
            _ => Packing::Plain,
        };
        let head = file.head()?;
        file.form = match head.as_slice() {
            [] => return Err(unknown(&file.path, "there is nothing in it")),
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => {
                let why = "it is in UTF-16, as PowerShell writes what goes through >";
                return Err(unknown(&file.path, why).with_hint("dump it with pg_dump --file=NAME instead"));
            }
            [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] => {
                return Err(unknown(&file.path, "it is compressed twice").with_hint("unpack it once"));
            }
            head if head.starts_with(b"PGDMP") => DumpForm::Custom,
            head if head.get(TAR_MAGIC) == Some(b"ustar") && file.packing == Packing::Plain => DumpForm::Tar,
            head if head.get(TAR_MAGIC) == Some(b"ustar") => {
                return Err(unknown(&file.path, "it is a tar file that is compressed").with_hint("unpack it once"));
            }
            head if head.contains(&0) => {
                return Err(unknown(&file.path, "it is neither a text nor an archive of pg_dump"));
            }
            _ => DumpForm::Script,
        };
        Ok(file)
    }

    /// Its first bytes, unpacked as far as it is known to be packed.
    fn head(&self) -> Result<Vec<u8>> {
        let mut head = Vec::new();
        self.reader()?.take(TAR_HEADER as u64).read_to_end(&mut head).map_err(|error| self.damaged(error))?;
        Ok(head)
    }

    fn reader(&self) -> Result<Box<dyn Read>> {
        let failed = |error| Error::from_io(format!("cannot read {}", self.path.display()), error);
        let file = BufReader::with_capacity(CHUNK, File::open(&self.path).map_err(failed)?);
        Ok(match self.packing {
            Packing::Plain => Box::new(file),
            Packing::Gzip => Box::new(MultiGzDecoder::new(file)),
            Packing::Zstd => Box::new(zstd::Decoder::with_buffer(file).map_err(failed)?),
        })
    }

    fn pass(&self, output: &mpsc::Sender<Bytes>) -> Result<()> {
        let mut reader = self.reader()?;
        loop {
            let mut chunk = Vec::with_capacity(CHUNK);
            reader.by_ref().take(CHUNK as u64).read_to_end(&mut chunk).map_err(|error| self.damaged(error))?;
            if chunk.is_empty() || output.blocking_send(chunk.into()).is_err() {
                return Ok(());
            }
        }
    }

    fn read_toc(&self) -> Result<(Toc, bool)> {
        let cut =
            || Error::failed("archive_damaged", format!("{} ends within its table of contents", self.path.display()));
        let failed = |error| Error::from_io(format!("cannot read {}", self.path.display()), error);
        let mut bytes = Vec::new();
        match self.form {
            DumpForm::Directory => {
                let file = File::open(self.path.join(TOC)).map_err(failed)?;
                file.take(archive::TOC_MAX).read_to_end(&mut bytes).map_err(failed)?;
                archive::toc(&bytes, Layout::Files)?.ok_or_else(cut)
            }
            DumpForm::Tar => {
                let mut reader = self.reader()?;
                reader.by_ref().take(TAR_HEADER as u64).read_to_end(&mut bytes).map_err(failed)?;
                let length =
                    tar_member(&bytes, TOC).ok_or_else(|| unknown(&self.path, "it is no tar file of pg_dump"))?;
                bytes.clear();
                reader.take(length.min(archive::TOC_MAX)).read_to_end(&mut bytes).map_err(failed)?;
                archive::toc(&bytes, Layout::Files)?.ok_or_else(cut)
            }
            DumpForm::Custom | DumpForm::Script => {
                let mut wanted = CHUNK as u64;
                let mut reader = self.reader()?;
                loop {
                    let had = bytes.len();
                    reader.by_ref().take(wanted).read_to_end(&mut bytes).map_err(|error| self.damaged(error))?;
                    match archive::toc(&bytes, Layout::Custom)? {
                        Some(toc) => return Ok(toc),
                        None if bytes.len() == had => return Err(cut()),
                        // Read once more from its beginning: at most as often as it doubles.
                        None => wanted = bytes.len() as u64,
                    }
                }
            }
        }
    }

    fn damaged(&self, error: io::Error) -> Error {
        match self.packing {
            Packing::Plain => Error::from_io(format!("cannot read {}", self.path.display()), error),
            Packing::Gzip | Packing::Zstd => {
                Error::failed("dump_damaged", format!("{} cannot be unpacked", self.path.display())).with_source(error)
            }
        }
    }
}

/// What is read of a file, on a thread of its own.
pub(super) struct FileChunks {
    output: mpsc::Receiver<Bytes>,
    reader: Option<JoinHandle<Result<()>>>,
}

#[async_trait]
impl Chunks for FileChunks {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        if let Some(chunk) = self.output.recv().await {
            return Ok(Some(chunk));
        }
        match self.reader.take() {
            Some(reader) => reader.await.map_err(cut)?.map(|()| None),
            None => Ok(None),
        }
    }
}

/// The length of the first member, if it is called so.
fn tar_member(header: &[u8], name: &str) -> Option<u64> {
    let text = |range: std::ops::Range<usize>| {
        let field = header.get(range)?;
        std::str::from_utf8(field.split(|byte| *byte == 0).next()?).ok()
    };
    let length = u64::from_str_radix(text(124..136)?.trim(), 8).ok()?;
    (text(0..100)? == name).then_some(length)
}

fn unknown(path: &Path, why: &str) -> Error {
    Error::invalid_input("dump_unknown", format!("{} is no dump that can be restored: {why}", path.display()))
        .with_hint("give what pg_dump has written: a script, also .gz or .zst, or an archive of -Fc, -Fd or -Ft")
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    spawn_blocking(work).await.map_err(cut)?
}

fn cut(error: tokio::task::JoinError) -> Error {
    Error::failed("internal", "reading a dump was cut short").with_source(error)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    async fn recognised(content: &[u8]) -> Result<(DumpForm, Packing)> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        DumpFile::open(file.path()).await.map(|file| (file.form, file.packing))
    }

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    #[tokio::test]
    async fn what_is_in_a_file_tells_what_it_is() {
        let script = b"-- PostgreSQL database dump\n";
        assert_eq!(recognised(script).await.unwrap(), (DumpForm::Script, Packing::Plain));
        assert_eq!(recognised(&gzip(script)).await.unwrap(), (DumpForm::Script, Packing::Gzip));
        let zstd = zstd::encode_all(&script[..], 1).unwrap();
        assert_eq!(recognised(&zstd).await.unwrap(), (DumpForm::Script, Packing::Zstd));
        assert_eq!(recognised(b"PGDMP\x01\x0e\x00").await.unwrap(), (DumpForm::Custom, Packing::Plain));
        assert_eq!(recognised(&gzip(b"PGDMP\x01\x0e\x00")).await.unwrap(), (DumpForm::Custom, Packing::Gzip));
        let mut tar = vec![0; 512];
        tar[257..262].copy_from_slice(b"ustar");
        assert_eq!(recognised(&tar).await.unwrap(), (DumpForm::Tar, Packing::Plain));
        for strange in
            [&b""[..], b"\x7fELF\0\0", b"\xff\xfeS\0E\0", &gzip(&tar), &gzip(&gzip(script)), &[0x1f, 0x8b, 7]]
        {
            let error = recognised(strange).await.unwrap_err();
            assert!(["dump_unknown", "dump_damaged"].contains(&error.code()), "{strange:?}: {error:?}");
        }
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(DumpFile::open(folder.path()).await.unwrap_err().code(), "dump_unknown");
        let missing = DumpFile::open(folder.path().join("x")).await.unwrap_err();
        assert!(matches!(missing, Error::NotFound(_)), "{missing:?}");
    }

    #[tokio::test]
    async fn a_file_that_ends_early_is_told() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let whole = gzip(&b"SELECT 1;\n".repeat(100_000));
        file.write_all(&whole[..whole.len() / 2]).unwrap();
        let mut chunks = DumpFile::open(file.path()).await.unwrap().read();
        let error = loop {
            match chunks.next().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it ended as if it were whole"),
                Err(error) => break error,
            }
        };
        assert_eq!(error.code(), "dump_damaged");
    }
}
