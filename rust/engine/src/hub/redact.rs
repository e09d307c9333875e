//! Addresses without their secrets, for messages.

/// A text whose addresses have no secrets: the user and password before a host, the query (it may be a signature) and
/// the fragment are left out.
pub(super) fn redacted(text: &str) -> String {
    const MARK: &str = "://";
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(MARK) {
        let (before, after) = rest.split_at(start + MARK.len());
        shown.push_str(before);
        let end = after
            .find(|c: char| c.is_whitespace() || matches!(c, '"' | '`' | '\'' | '(' | ')' | '<' | '>' | ','))
            .unwrap_or(after.len());
        let (address, next) = after.split_at(end);
        shown.push_str(without_secrets(address));
        rest = next;
    }
    shown.push_str(rest);
    shown
}

/// What is left of an address, from after its scheme.
fn without_secrets(address: &str) -> &str {
    // A password with a slash or a question mark in it makes the address invalid, and must not be shown either.
    let address = address.rsplit_once('@').map_or(address, |(_user, rest)| rest);
    address.find(['?', '#']).map_or(address, |end| address.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_passwords_and_queries_are_left_out() {
        for (text, expected) in [
            ("no address", "no address"),
            ("https://host/a/b", "https://host/a/b"),
            ("http://me:pw@host:80/x", "http://host:80/x"),
            ("http://pw@host", "http://host"),
            ("http://me:p@w/s@host/", "http://host/"),
            ("at https://s3/x?X-Amz-Signature=pw#pw for you", "at https://s3/x for you"),
            ("(https://me:pw@a/?q=pw), `http://me:pw@b`", "(https://a/), `http://b`"),
            ("socks5h://me:pw@proxy:1080", "socks5h://proxy:1080"),
        ] {
            assert_eq!(redacted(text), expected);
        }
    }
}
