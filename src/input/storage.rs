//! Storage as a flag names it: text comes in, a name and the numbers that were given go out.

use crate::input::quantity::{parse_bytes, parse_seconds, parse_share};

/// A kind of storage with the numbers that the flag gives.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct StorageFlag {
    pub(crate) name: String,
    pub(crate) dollars_per_gb_month: Option<f64>,
    pub(crate) dollars_per_request: Option<f64>,
    pub(crate) bytes_per_second: Option<f64>,
    pub(crate) latency_seconds: Option<f64>,
    /// Room for blocks; without it there is room for all.
    pub(crate) size_bytes: Option<f64>,
}

/// Parses `NAME:price=0.03,bandwidth=8GB,latency=0.1ms,request=4e-7`.
pub(crate) fn parse_storage(text: &str) -> Result<StorageFlag, String> {
    let (name, settings) = text.split_once(':').unwrap_or((text, ""));
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || !name.chars().all(is_name) {
        return Err("begin with a name of letters, digits, -, _ and .".to_owned());
    }
    let mut flag = StorageFlag { name: name.to_owned(), ..StorageFlag::default() };
    for setting in settings.split(',').filter(|setting| !setting.is_empty()) {
        let (key, value) =
            setting.split_once('=').ok_or_else(|| format!("{setting:?} is not KEY=VALUE"))?;
        let (place, number) = match key {
            "price" => (&mut flag.dollars_per_gb_month, parse_share(value)),
            "request" => (&mut flag.dollars_per_request, parse_share(value)),
            "bandwidth" => (&mut flag.bytes_per_second, parse_bytes(value)),
            "latency" => (&mut flag.latency_seconds, parse_seconds(value)),
            "size" => (&mut flag.size_bytes, parse_bytes(value)),
            _ => {
                return Err(format!("{key:?} is none of price, request, bandwidth, latency, size"));
            }
        };
        if place.is_some() {
            return Err(format!("{key} is given twice"));
        }
        *place = Some(number.map_err(|what| format!("{key}: {what}"))?);
    }
    Ok(flag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storage_has_a_name_and_numbers() {
        let named = parse_storage("nvme").unwrap();
        assert_eq!(named, StorageFlag { name: "nvme".to_owned(), ..StorageFlag::default() });
        let own = parse_storage("disk:price=0.03,bandwidth=8GB,latency=0.1ms,request=0").unwrap();
        assert_eq!(own.dollars_per_gb_month, Some(0.03));
        assert_eq!(own.bytes_per_second, Some(8e9));
        assert_eq!((own.latency_seconds, own.dollars_per_request), (Some(1e-4), Some(0.0)));
        for (wrong, said) in [
            ("", "begin with a name"),
            (":price=1", "begin with a name"),
            ("a b", "begin with a name"),
            ("a:price", "not KEY=VALUE"),
            ("a:cost=1", "none of price"),
            ("a:price=x", "price: give a number"),
            ("a:bandwidth=0", "bandwidth: give a number above 0"),
            ("a:price=1,price=2", "twice"),
        ] {
            let error = parse_storage(wrong).unwrap_err();
            assert!(error.contains(said), "{wrong}: {error}");
        }
    }
}
