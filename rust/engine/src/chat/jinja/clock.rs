//! The local time, for templates that ask for it.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use jiff::Zoned;
use jiff::tz::TimeZone;

use super::Outcome;
use super::value::invalid;
use crate::file::read_regular;

/// The largest file of a time zone that is read; those of the database have at most 4 KiB.
const MAX_ZONE_BYTES: u64 = 1 << 20;
const MAX_FORMAT_BYTES: usize = 256;
/// Where systems keep their time zones.
const FOLDERS: [&str; 3] = ["/usr/share/zoneinfo", "/usr/lib/zoneinfo", "/etc/zoneinfo"];

/// The local time, read when it is first asked for and the same from then on.
#[derive(Clone, Debug, Default)]
pub(in crate::chat) struct Clock(Arc<OnceLock<Zoned>>);

impl Clock {
    /// Python's `datetime.now().strftime(format)`.
    pub(super) fn strftime(&self, format: &str) -> Outcome<String> {
        if format.len() > MAX_FORMAT_BYTES {
            return Err(invalid("strftime_now: the format is too long"));
        }
        let now = self.0.get_or_init(now);
        jiff::fmt::strtime::format(format, now).map_err(|error| invalid(format!("strftime_now: {error}")))
    }

    /// Whether the time was asked for.
    #[cfg(test)]
    pub(super) fn is_read(&self) -> bool {
        self.0.get().is_some()
    }
}

/// The time zone that the environment variable TZ names. The library would read a file of any size.
pub(super) fn named(tz: &str) -> TimeZone {
    let name = tz.strip_prefix(':').unwrap_or(tz);
    if name.is_empty() {
        return TimeZone::UTC;
    }
    let file = |path: &Path| {
        let bytes = read_regular(path, "a time zone", MAX_ZONE_BYTES).ok()??;
        TimeZone::tzif(name, &bytes).ok()
    };
    let is_relative = !Path::new(name).is_absolute() && !name.split(['/', '\\']).any(|part| part == "..");
    let found = if is_relative {
        FOLDERS.iter().find_map(|folder| file(&Path::new(folder).join(name)))
    } else {
        file(Path::new(name))
    };
    found.or_else(|| TimeZone::posix(name).ok()).unwrap_or(TimeZone::UTC)
}

fn now() -> Zoned {
    let zone = match std::env::var_os("TZ") {
        Some(tz) if cfg!(unix) => named(&tz.to_string_lossy()),
        // The system's own setting.
        _ => TimeZone::system(),
    };
    jiff::Timestamp::now().to_zoned(zone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zone_is_read_from_regular_files_of_a_sensible_size_only() {
        let folder = tempfile::tempdir().unwrap();
        let large = folder.path().join("large");
        std::fs::File::create(&large).unwrap().set_len(MAX_ZONE_BYTES + 1).unwrap();
        for name in ["/dev/zero", ":/dev/zero", "", ":", "no/such/zone", "../../dev/zero", large.to_str().unwrap()]
        {
            assert_eq!(named(name), TimeZone::UTC, "{name:?}");
        }
        let offset = |zone: &TimeZone| zone.to_offset(jiff::Timestamp::UNIX_EPOCH).seconds();
        assert_eq!(offset(&named("XYZ-3")), 3 * 3600);
    }

    #[test]
    fn template_reads_the_time_only_if_it_asks_for_it() {
        for (template, asks) in
            [("{{ messages|length }}{{ strftime_now is defined }}", false), ("{{ strftime_now('%Y') }}", true)]
        {
            let clock = Clock::default();
            let jinja = super::super::Jinja::compile(template, "", "", "use a raw prompt").unwrap();
            jinja.render(&[("user", "a")], true, &clock).unwrap();
            assert_eq!(clock.is_read(), asks, "{template}");
        }
    }

    #[test]
    fn time_is_read_when_it_is_asked_for() {
        let clock = Clock::default();
        assert!(!clock.is_read());
        let first = clock.strftime("%Y-%m-%d %H:%M:%S.%f").unwrap();
        assert!(clock.is_read());
        assert_eq!(clock.strftime("%Y-%m-%d %H:%M:%S.%f").unwrap(), first);
        assert!(clock.strftime(&"%Y".repeat(MAX_FORMAT_BYTES)).is_err());
    }
}
