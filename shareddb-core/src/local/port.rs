//! The server's TCP port: chosen once, then kept, because Secrets name it.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;

use super::home::LocalHome;
use crate::error::{Error, Result};
use crate::file;

/// PostgreSQL's own port, which a server of the distribution may want.
const WELL_KNOWN: u16 = 5432;
/// Below the ports that kernels lend to outgoing connections (from 32768) and that Kubernetes gives
/// to nodes (from 30000): one of those would now and then be in use when the server starts again.
const RANGE: Range<u16> = 20_000..30_000;
const ATTEMPTS: usize = 64;

/// The port in the file, or `None` when there is no file.
pub(super) fn stored(home: &LocalHome) -> Result<Option<u16>> {
    let file = home.port_file();
    let text = match file::read_text(&file) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::from_io(format!("cannot read {}", file.display()), e)),
    };
    match text.trim().parse() {
        Ok(port) if port != 0 => Ok(Some(port)),
        _ => Err(Error::conflict("port_file_invalid", format!("{} does not hold a port number", file.display()))
            .with_hint("write the number into it that the Secrets name, or remove it to have another port chosen")),
    }
}

/// The port to start on: the stored one, which must be free, or a new one, which is then stored.
pub(super) fn reserve(home: &LocalHome) -> Result<u16> {
    if let Some(port) = stored(home)? {
        must_be_free(home, port)?;
        return Ok(port);
    }
    let port = choose()?;
    store(home, port)?;
    Ok(port)
}

/// Keeps `port` for the next start.
pub(super) fn store(home: &LocalHome, port: u16) -> Result<()> {
    home.write(&home.port_file(), &format!("{port}\n"), 0o600)
}

fn choose() -> Result<u16> {
    let free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    let random = || rand::random_range(RANGE);
    if let Some(port) = std::iter::repeat_with(random).take(ATTEMPTS).find(free) {
        return Ok(port);
    }
    loop {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        match port.map_err(|e| Error::from_io("cannot find a free port on 127.0.0.1", e))?.port() {
            WELL_KNOWN => {}
            port => return Ok(port),
        }
    }
}

fn must_be_free(home: &LocalHome, port: u16) -> Result<()> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::AddrInUse => Err(taken(home, port)),
        Err(e) => Err(Error::from_io(format!("cannot listen on 127.0.0.1:{port}"), e)),
    }
}

/// Another program has the port. It is not changed by itself: apps would look for the server in vain.
pub(super) fn taken(home: &LocalHome, port: u16) -> Error {
    Error::conflict("port_taken", format!("another program listens on port {port}, which is the local server's"))
        .with_hint(format!(
            "`{}` shows who; end it, or remove {} to have another port chosen: Secrets that name this one \
             must then be written again",
            who_listens(port),
            home.port_file().display()
        ))
}

/// The command that shows which process listens on `port`.
pub(super) fn who_listens(port: u16) -> String {
    if cfg!(target_os = "linux") {
        format!("ss -ltnp 'sport = :{port}'")
    } else {
        format!("lsof -nP -iTCP:{port} -sTCP:LISTEN")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_port_is_chosen_once() {
        let dir = tempfile::tempdir().unwrap();
        let home = LocalHome::at(dir.path());
        assert_eq!(stored(&home).unwrap(), None);
        let port = reserve(&home).unwrap();
        assert!(RANGE.contains(&port));
        assert_eq!(reserve(&home).unwrap(), port);
    }

    #[test]
    fn a_taken_port_is_named_and_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let home = LocalHome::at(dir.path());
        let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = other.local_addr().unwrap().port();
        store(&home, port).unwrap();
        let error = reserve(&home).unwrap_err();
        assert!(matches!(error, Error::Conflict(_)));
        assert!(error.to_string().contains(&port.to_string()));
        assert!(error.hint().unwrap().contains("port"));
        assert_eq!(stored(&home).unwrap(), Some(port));
    }

    #[test]
    fn a_broken_port_file_is_not_guessed_around() {
        let dir = tempfile::tempdir().unwrap();
        let home = LocalHome::at(dir.path());
        for text in ["", "0", "70000", "5433 5434"] {
            fs::write(home.port_file(), text).unwrap();
            assert_eq!(reserve(&home).unwrap_err().code(), "port_file_invalid", "{text}");
        }
    }
}
