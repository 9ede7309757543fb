//! How single values are spelled: sizes, durations, addresses. Text in, value out; none when it is not one.

use std::{net::SocketAddr, time::Duration};

use super::{Network, RuleSeries, Server};

/// Octets: `4096`, `256 KiB`, `10k`. K, M and G are powers of 1024, with or without `iB` or `B`.
pub(super) fn size(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(factor)
}

/// A time span: `500ms`, `5s`, `5m`, `1h`, `2d`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let seconds = match unit {
        "ms" => return Some(Duration::from_millis(number)),
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    number.checked_mul(seconds).map(Duration::from_secs)
}

fn split(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, text[end..].trim()))
}

/// A whole number.
pub(super) fn count(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Points of a score.
pub(super) fn points(text: &str) -> Option<f64> {
    text.parse().ok().filter(|points: &f64| points.is_finite())
}

/// `true` or `false`.
pub(super) fn switch(text: &str) -> Option<bool> {
    match text {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

/// An address and a port: `0.0.0.0:25`, `[::]:25`.
pub(super) fn address(text: &str) -> Option<SocketAddr> {
    text.parse().ok().filter(|address: &SocketAddr| address.port() != 0)
}

/// A host and a port: `mail.example.org:25`, `10.0.0.5:25`, `[2001:db8::5]:25`.
pub(super) fn server(text: &str) -> Option<Server> {
    let (host, port) = text.rsplit_once(':')?;
    let port = count(port).and_then(|port| u16::try_from(port).ok()).filter(|&port| port != 0)?;
    let host = match host.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']').filter(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok())?,
        None if host.contains(':') => return None,
        None => host,
    };
    host_name(host).map(|host| Server { host, port })
}

/// A domain name of one label or more, or an address.
pub(super) fn host_name(text: &str) -> Option<String> {
    if text.parse::<std::net::IpAddr>().is_ok() { Some(text.to_owned()) } else { super::domain::domain(text) }
}

/// An address block: `10.0.0.0/8`, `2001:db8::/32`, or one address.
pub(super) fn network(text: &str) -> Option<Network> {
    let (address, prefix) =
        text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
    let address: std::net::IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let prefix = prefix.map_or(Some(most), count)?;
    let prefix = u8::try_from(prefix).ok().filter(|&prefix| u64::from(prefix) <= most)?;
    Some(Network { address, prefix })
}

/// `top-200`, `all` or `off`.
pub(super) fn rule_series(text: &str) -> Option<RuleSeries> {
    match text {
        "all" => Some(RuleSeries::All),
        "off" => Some(RuleSeries::Off),
        _ => {
            let number = count(text.strip_prefix("top-")?).filter(|&number| number > 0)?;
            usize::try_from(number).ok().map(RuleSeries::Top)
        }
    }
}

/// A tag for subjects: printable ASCII, so that it fits a header line as it is; `off` is none. At most 40 characters.
pub(super) fn subject(text: &str) -> Option<Option<String>> {
    if text == "off" {
        return Some(None);
    }
    let sound =
        !text.is_empty() && text.len() <= 40 && text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    sound.then(|| Some(text.to_owned()))
}

/// A name in logs, metrics and paths of the configuration.
pub(super) fn label(text: &str) -> Option<String> {
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (!text.is_empty() && text.len() <= 64 && text.bytes().all(sound)).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_are_read_with_their_units() {
        for (text, octets) in [
            ("0", Some(0)),
            ("4096", Some(4096)),
            ("10k", Some(10_240)),
            ("16 MiB", Some(16 << 20)),
            ("16MB", Some(16 << 20)),
            ("2 G", Some(2 << 30)),
            ("99999999999999999999", None),
            ("99999999999 GiB", None),
            ("1.5 MiB", None),
            ("-1", None),
            ("MiB", None),
            ("5s", None),
        ] {
            assert_eq!(size(text), octets, "{text}");
        }
        for (text, millis) in [
            ("500ms", Some(500)),
            ("5s", Some(5_000)),
            ("5 m", Some(300_000)),
            ("1h", Some(3_600_000)),
            ("2d", Some(172_800_000)),
            ("5", None),
            ("5 MiB", None),
            ("1h30m", None),
        ] {
            assert_eq!(duration(text), millis.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn places_in_the_network_are_read_strictly() {
        for (text, sound) in [
            ("mail.example.org:25", true),
            ("mail:25", true),
            ("10.0.0.5:25", true),
            ("[2001:db8::5]:25", true),
            ("2001:db8::5:25", false),
            ("mail.example.org", false),
            ("mail.example.org:0", false),
            ("mail.example.org:+25", false),
            ("mail.example.org:65536", false),
            ("ma il:25", false),
            ("[10.0.0.5]:25", false),
            (":25", false),
        ] {
            assert_eq!(server(text).is_some(), sound, "{text}");
        }
        for (text, sound) in [
            ("10.0.0.0/8", true),
            ("10.0.0.1", true),
            ("2001:db8::/32", true),
            ("10.0.0.0/33", false),
            ("10.0.0/8", false),
            ("::/+1", false),
            ("lan", false),
        ] {
            assert_eq!(network(text).is_some(), sound, "{text}");
        }
    }
}
