//! Who listens on an address, from `/proc`, so that a taken port has a name.
//!
//! A courtesy: whatever cannot be read (another user's process, another system) gives none.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
};

/// A process that listens.
pub(super) struct Holder {
    /// Its name, as the kernel has it: at most 15 octets.
    pub(super) name: String,
    pub(super) process: u32,
}

/// The process whose listening socket keeps others from binding `address`.
pub(super) fn of(address: SocketAddr) -> Option<Holder> {
    let tables: Vec<_> =
        ["/proc/net/tcp", "/proc/net/tcp6"].iter().filter_map(|path| fs::read_to_string(path).ok()).collect();
    let inodes = tables.iter().flat_map(|table| table.lines()).filter_map(|line| listening(line, address));
    let sockets: Vec<_> = inodes.map(|inode| format!("socket:[{inode}]")).collect();
    if sockets.is_empty() {
        return None;
    }
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find_map(|process: u32| {
        holds(process, &sockets).then(|| {
            let name = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
            Holder { name: name.trim().to_owned(), process }
        })
    })
}

fn holds(process: u32, sockets: &[String]) -> bool {
    let Ok(files) = fs::read_dir(format!("/proc/{process}/fd")) else { return false };
    files
        .flatten()
        .filter_map(|file| fs::read_link(file.path()).ok())
        .any(|target| sockets.iter().any(|socket| target.as_os_str() == socket.as_str()))
}

/// The inode of a line of `/proc/net/tcp` that listens (state 0A) where `address` would.
fn listening(line: &str, address: SocketAddr) -> Option<&str> {
    let mut fields = line.split_ascii_whitespace();
    let (ip, port) = fields.nth(1)?.split_once(':')?;
    let listens = fields.nth(1)? == "0A";
    let (ip, port) = (local(ip)?, u16::from_str_radix(port, 16).ok()?);
    let meets = ip == address.ip()
        || ip.is_unspecified()
        || (address.ip().is_unspecified() && ip.is_ipv4() == address.is_ipv4());
    (listens && port == address.port() && meets).then(|| fields.nth(5)).flatten()
}

/// An address as the kernel prints it: words of 32 bits in the machine's own order.
fn local(hex: &str) -> Option<IpAddr> {
    let word = |at| u32::from_str_radix(hex.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    match hex.len() {
        8 => word(0).map(IpAddr::from),
        32 => {
            let mut octets = [0; 16];
            for (index, part) in octets.chunks_exact_mut(4).enumerate() {
                part.copy_from_slice(&word(index * 8)?);
            }
            Some(IpAddr::from(octets))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_that_listens_is_found() {
        for bound in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(socket) = std::net::TcpListener::bind(bound) else { continue };
            let address = socket.local_addr().unwrap();
            assert_eq!(of(address).map(|holder| holder.process), Some(std::process::id()), "{address}");
        }
    }

    #[test]
    fn a_line_counts_where_it_meets_the_address() {
        let line = "   0: 0100007F:0019 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1";
        for (address, inode) in [
            ("127.0.0.1:25", Some("4711")),
            ("0.0.0.0:25", Some("4711")),
            ("127.0.0.2:25", None),
            ("127.0.0.1:26", None),
            ("[::]:25", None),
        ] {
            assert_eq!(listening(line, address.parse().unwrap()), inode, "{address}");
        }
        assert_eq!(listening(&line.replace(" 0A ", " 01 "), "127.0.0.1:25".parse().unwrap()), None);
        assert_eq!(listening("  sl  local_address rem_address   st", "127.0.0.1:25".parse().unwrap()), None);
    }
}
