//! The names of a split GGUF's parts: `name-00001-of-00003.gguf`.

/// How many digits the numbers in a part's name have.
const DIGITS: usize = 5;

/// A part's name, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PartName<'a> {
    /// What all parts begin with, folders included.
    prefix: &'a str,
    /// Which part it is, from 1 on.
    pub(crate) number: usize,
    /// How many there are.
    pub(crate) count: usize,
    /// `.gguf`, as it was written.
    suffix: &'a str,
}

impl<'a> PartName<'a> {
    /// Takes a file name apart; nothing if it isn't that of a part.
    pub(crate) fn parse(name: &'a str) -> Option<Self> {
        let (stem, suffix) = name.split_at_checked(name.rfind('.')?)?;
        let (rest, count) = number_at_end(stem)?;
        let (prefix, number) = number_at_end(rest.strip_suffix("-of-")?)?;
        let prefix = prefix.strip_suffix('-')?;
        let is_part = suffix.eq_ignore_ascii_case(".gguf") && (1..=count).contains(&number);
        is_part.then_some(Self { prefix, number, count, suffix })
    }

    /// The name of part `number` of the same model.
    pub(crate) fn with_number(&self, number: usize) -> String {
        let Self { prefix, count, suffix, .. } = self;
        format!("{prefix}-{number:0DIGITS$}-of-{count:0DIGITS$}{suffix}")
    }

    /// The names of all parts, in order.
    pub(crate) fn all(&self) -> impl Iterator<Item = String> {
        (1..=self.count).map(|number| self.with_number(number))
    }
}

/// What stands before the digits at the end, and their number.
fn number_at_end(text: &str) -> Option<(&str, usize)> {
    let (rest, digits) = text.split_at_checked(text.len().checked_sub(DIGITS)?)?;
    // `parse` alone would take a sign.
    let number = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()?;
    Some((rest, number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_names_all_the_others() {
        let name = PartName::parse("dir/phi-4-Q8_0-00002-of-00003.gguf").unwrap();
        assert_eq!((name.number, name.count), (2, 3));
        assert_eq!(
            name.all().collect::<Vec<_>>(),
            [1, 2, 3].map(|number| format!("dir/phi-4-Q8_0-0000{number}-of-00003.gguf"))
        );
        assert_eq!(PartName::parse("ü-00001-of-00001.GGUF").unwrap().with_number(1), "ü-00001-of-00001.GGUF");
    }

    #[test]
    fn other_names_are_no_parts() {
        for name in [
            "",
            "model.gguf",
            "-00001-of-00002",
            "model-1-of-2.gguf",
            "model-00001-of-2.gguf",
            "model-+0001-of-00002.gguf",
            "model-00000-of-00002.gguf",
            "model-00003-of-00002.gguf",
            "model-00001-of-00002.bin",
            "model00001-of-00002.gguf",
            "model-00001-OF-00002.gguf",
            "ü0001-of-00002.gguf",
            "0ü0001-of-00ü02.gguf",
        ] {
            assert_eq!(PartName::parse(name), None, "{name}");
        }
    }
}
