//! Lists of tiers. In: text with commas. Out: tiers, in order. Hosts of a URL and paths may have commas too.

use super::TierSpec;
use super::error::SpecError;

/// Starts of tiers that end what stood before them.
const STARTS: [&str; 9] =
    ["device:", "ram:", "cache:", "folder:", "file://", "redis://", "rediss://", "s3://", "/"];

/// Parses tiers with commas between them. A comma within a path or between the hosts of a URL is a part of the
/// tier, unless what follows it starts like a tier.
///
/// # Errors
/// [`SpecError`] of the first tier that is wrong.
///
/// ```
/// let tiers = "ram:4GiB,store,redis://a:7000,b:7000?role=cache,s3://bucket/prefix";
/// assert_eq!(hyperrag_tiers::parse_tiers(tiers)?.len(), 4);
/// # Ok::<(), hyperrag_tiers::SpecError>(())
/// ```
pub fn parse_tiers(list: &str) -> Result<Vec<TierSpec>, SpecError> {
    split(list).map(str::parse).collect()
}

fn split(list: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(list);
    std::iter::from_fn(move || {
        let text = rest?;
        let commas = text.match_indices(',').map(|(at, _)| at);
        let mut ends = commas.filter(|at| !goes_on(&text[..*at]) || starts(&text[at + 1..]));
        let end = ends.next();
        rest = end.map(|end| &text[end + 1..]);
        Some(&text[..end.unwrap_or(text.len())])
    })
}

/// Whether the tier that starts with this text may have a comma.
fn goes_on(text: &str) -> bool {
    let text = text.trim_start();
    let hosts = ["redis://", "rediss://"].iter().any(|start| text.starts_with(start));
    let path = ["cache:", "folder:", "file://", "/"].iter().any(|start| text.starts_with(start));
    path || (hosts && !text.contains('?'))
}

/// Whether a tier starts here.
fn starts(text: &str) -> bool {
    let text = text.trim_start();
    let store = text.strip_prefix("store").is_some_and(|rest| {
        let rest = rest.trim_start();
        rest.is_empty() || rest.starts_with(',')
    });
    store || STARTS.iter().any(|start| text.starts_with(start))
}
