//! Hash slots of a Redis Cluster: the slot of a key, addresses of nodes, and which nodes hold a slot.
//!
//! In: keys, and the answer to `CLUSTER SLOTS`. Out: slots and addresses. It knows no connection.

use std::fmt;

use redis::Value;

/// Number of hash slots of a cluster.
pub(super) const SLOTS: u16 = 16384;

/// Host and port of a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
}

impl Address {
    /// Reads `host:port`, `host` (port 6379) or `[v6]:port`. An empty host is `asked`, the host that answered.
    pub(super) fn parse(text: &str, asked: &str) -> Option<Self> {
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port))
                if !host.contains(':') || host.ends_with(']') || !asked.is_empty() =>
            {
                (host, port.parse().ok().filter(|port| *port > 0)?)
            }
            _ => (text, 6379),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let host = if host.is_empty() || host == "?" { asked } else { host };
        (!host.is_empty()).then(|| Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Run of slots and the nodes that hold it, the master first.
#[derive(Debug, PartialEq)]
pub(super) struct SlotRange {
    pub(super) first: u16,
    pub(super) last: u16,
    pub(super) nodes: Vec<Address>,
}

/// Returns the hash slot of a key: of its tag in braces, if it has one.
pub(super) fn slot_of(key: &[u8]) -> u16 {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        let close = rest.iter().position(|byte| *byte == b'}')?;
        (close > 0).then(|| &rest[..close])
    });
    crc16(tag.unwrap_or(key)) % SLOTS
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc: u16, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    })
}

/// Reads the answer to `CLUSTER SLOTS` of the node at `asked`. `None` if it is none.
pub(super) fn parse_slots(answer: &Value, asked: &str) -> Option<Vec<SlotRange>> {
    let Value::Array(ranges) = answer else { return None };
    ranges.iter().map(|range| parse_range(range, asked)).collect()
}

fn parse_range(range: &Value, asked: &str) -> Option<SlotRange> {
    let Value::Array(fields) = range else { return None };
    let [first, last, nodes @ ..] = &fields[..] else { return None };
    let slot = |value: &Value| match value {
        Value::Int(slot) => u16::try_from(*slot).ok().filter(|slot| *slot < SLOTS),
        _ => None,
    };
    let nodes = nodes.iter().map(|node| {
        let Value::Array(fields) = node else { return None };
        let [host, Value::Int(port), ..] = &fields[..] else { return None };
        let host = match host {
            Value::BulkString(host) => std::str::from_utf8(host).ok()?,
            Value::SimpleString(host) => host,
            _ => "",
        };
        let host = if host.is_empty() || host == "?" { asked } else { host };
        Some(Address { host: host.to_owned(), port: u16::try_from(*port).ok()? })
    });
    let nodes = nodes.collect::<Option<Vec<_>>>()?;
    (!nodes.is_empty()).then_some(SlotRange { first: slot(first)?, last: slot(last)?, nodes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_servers() {
        // As `CLUSTER KEYSLOT` of Redis 7.0.15 says.
        for (key, slot) in [
            ("123456789", 12739),
            ("foo", 12182),
            ("{user1000}.following", 3443),
            ("foo{}{bar}", 8363),
            ("foo{{bar}}zap", 4015),
            ("foo{bar}{zap}", 5061),
            ("", 0),
        ] {
            assert_eq!(slot_of(key.as_bytes()), slot, "{key}");
        }
    }

    #[test]
    fn addresses_are_read() {
        let parse = |text, asked| Address::parse(text, asked).map(|found| found.to_string());
        assert_eq!(parse("kv1:7000", ""), Some("kv1:7000".to_owned()));
        assert_eq!(parse("kv1", ""), Some("kv1:6379".to_owned()));
        assert_eq!(parse("[::1]:7000", ""), Some("[::1]:7000".to_owned()));
        assert_eq!(parse("::1", ""), Some("[::1]:6379".to_owned()));
        // As MOVED says them.
        assert_eq!(parse(":7001", "kv1"), Some("kv1:7001".to_owned()));
        assert_eq!(parse("?:7001", "kv1"), Some("kv1:7001".to_owned()));
        assert_eq!(parse("fe80::1:7001", "kv1"), Some("[fe80::1]:7001".to_owned()));
        for wrong in ["", ":7000", "kv1:port", "kv1:70000", "kv1:0"] {
            assert_eq!(parse(wrong, ""), None, "{wrong}");
        }
    }

    #[test]
    fn an_answer_that_is_no_map_is_none() {
        let node =
            |host: &str, port| Value::Array(vec![Value::BulkString(host.into()), Value::Int(port)]);
        let range = |first, last, nodes: Vec<Value>| {
            Value::Array([vec![Value::Int(first), Value::Int(last)], nodes].concat())
        };
        let good = Value::Array(vec![range(0, 9, vec![node("a", 1), node("", 2)])]);
        let ranges = parse_slots(&good, "asked").unwrap();
        let addresses: Vec<_> = ranges[0].nodes.iter().map(ToString::to_string).collect();
        assert_eq!((ranges[0].first, ranges[0].last), (0, 9));
        assert_eq!(addresses, ["a:1", "asked:2"]);
        for wrong in [
            Value::Nil,
            Value::Array(vec![Value::Int(1)]),
            Value::Array(vec![range(0, 16384, vec![node("a", 1)])]),
            Value::Array(vec![range(-1, 3, vec![node("a", 1)])]),
            Value::Array(vec![range(0, 3, vec![])]),
            Value::Array(vec![range(0, 3, vec![node("a", 70000)])]),
        ] {
            assert!(parse_slots(&wrong, "asked").is_none(), "{wrong:?}");
        }
    }
}
