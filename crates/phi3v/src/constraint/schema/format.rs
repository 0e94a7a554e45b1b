//! The string formats of the standard.
//!
//! Validators differ in what they accept for a format. So each format has two sets of strings:
//!
//! - Answers are generated from the narrower set: the texts of the RFC, except those that some validator in use refuses.
//! - Values that the author of a schema wrote (in `const`, in `enum` or as a name) and finished answers are checked
//!   against the wider set, which contains whatever some validator accepts.

use std::collections::HashMap;
use std::sync::LazyLock;

use llguidance::derivre::RegexAst;

/// The bytes that a format counts as among patterns that must hold at once: its alternatives diverge early.
pub(super) const BYTES_COUNTED: usize = 300;

/// The strings of one format.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Format {
    /// Regular expressions that a string of an answer must all match as a whole.
    written: Vec<String>,
    /// The regular expression that any string of this format matches.
    taken: String,
}

impl Format {
    /// Returns the format with a name. Returns `None` if the name is only informative: the standard does not know it, or it
    /// is `regex`, for which validators differ in nearly everything.
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        FORMATS.get(name)
    }

    /// Returns the strings that answers are generated from.
    pub(super) fn written(&self) -> RegexAst {
        let mut all: Vec<RegexAst> = self.written.iter().cloned().map(RegexAst::Regex).collect();
        if all.len() == 1 { all.remove(0) } else { RegexAst::And(all) }
    }

    /// Returns all strings that are accepted for this format.
    pub(super) fn taken(&self) -> RegexAst {
        RegexAst::Regex(self.taken.clone())
    }

    fn exact(pattern: &str) -> Self {
        Self { written: vec![pattern.to_owned()], taken: pattern.to_owned() }
    }

    fn of(written: &str, taken: &str) -> Self {
        Self { written: vec![written.to_owned()], taken: taken.to_owned() }
    }

    /// Adds an expression that must hold too.
    fn within(mut self, bound: &str) -> Self {
        self.written.push(bound.to_owned());
        self
    }
}

static FORMATS: LazyLock<HashMap<&'static str, Format>> = LazyLock::new(|| {
    let all = times().into_iter().chain(hosts()).chain(addresses()).chain(pointers());
    all.collect()
});

type Named = (&'static str, Format);

/// Dates, times and durations of RFC 3339.
fn times() -> Vec<Named> {
    let day =
        date("(?:[1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])", "(?:0[48]|[2468][048]|[13579][26])00");
    let any_day = date("[0-9]{4}", "(?:[02468][048]|[13579][26])00");
    let minute = "(?:[01][0-9]|2[0-3]):[0-5][0-9]";
    let time = format!("{minute}:[0-5][0-9](?:\\.[0-9]+)?(?:[Zz]|[+-]{minute})");
    // seconds and zone may be left out, and leap seconds are accepted
    let any_time = format!(
        "{minute}(?::(?:[0-5][0-9]|60)(?:[.,][0-9]+)?)?(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):?[0-5][0-9])?"
    );
    let clock = "T(?:[0-9]+H(?:[0-9]+M(?:[0-9]+S)?)?|[0-9]+M(?:[0-9]+S)?|[0-9]+S)";
    let days = "[0-9]+D";
    let months = format!("[0-9]+M(?:{days})?");
    let duration = format!("P(?:[0-9]+W|(?:[0-9]+Y(?:{months})?|{months}|{days})(?:{clock})?|{clock})");
    let number = "[0-9]+(?:[.,][0-9]+)?";
    let any_clock = format!("T(?:{number}[HMS])+");
    let any_duration = format!("[+-]?P(?:(?:{number}[YMWD])+(?:{any_clock})?|{any_clock})");
    vec![
        ("date", Format::of(&day, &any_day)),
        ("time", Format::of(&time, &any_time)),
        ("date-time", Format::of(&format!("{day}[Tt]{time}"), &format!("{any_day}[Tt _]{any_time}"))),
        ("duration", Format::of(&duration, &any_duration)),
    ]
}

/// Returns the expression of valid dates, including leap days, for the given years and the given leap centuries.
fn date(year: &str, leap_century: &str) -> String {
    let days = "(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|\
        02-(?:0[1-9]|1[0-9]|2[0-8])";
    let leap_year = format!("[0-9]{{2}}(?:0[48]|[2468][048]|[13579][26])|{leap_century}");
    format!("(?:{year}-(?:{days})|(?:{leap_year})-02-29)")
}

/// Host names (RFC 1123; RFC 5890 for non-ASCII letters) and mail addresses (RFC 5321).
fn hosts() -> Vec<Named> {
    let host = Format::of(&format!("{LABEL}(?:\\.{LABEL})*"), "[a-zA-Z0-9_.-]+").within(".{1,253}");
    let wide_label = wide_label();
    // a letter may become several, in bytes or in the ASCII form in which such names are sent
    let wide_host = Format::of(&format!("{wide_label}(?:\\.{wide_label})*"), "[^\\x00-\\x20/:@]+")
        .within("(?:[!-~]{1,253}|.{1,84})");
    let atom = "[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]+";
    let top = "[a-zA-Z](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])";
    let mail = format!("{atom}(?:\\.{atom})*@(?:{LABEL}\\.)+{top}");
    let any_mail = "(?s:.+@.+)";
    let wide_atom = format!("[a-zA-Z0-9!#$%&'*+/=?^_`{{|}}~{WRITTEN_LETTERS}-]+");
    let wide_top = format!("(?:{top}|{LETTER}{{2,14}})");
    let wide_mail = format!("{wide_atom}(?:\\.{wide_atom})*@(?:{wide_label}\\.)+{wide_top}");
    // an address has at most 254 letters in total
    vec![
        ("hostname", host),
        ("idn-hostname", wide_host),
        ("email", Format::of(&mail, any_mail).within("[^@]{1,64}@[^@]{1,189}")),
        ("idn-email", Format::of(&wide_mail, any_mail).within("(?:[!-?A-~]{1,64}|[^@]{1,21})@[^@]{1,84}")),
        ("ipv4", Format::exact(IPV4)),
        ("ipv6", Format::exact(&ipv6())),
    ]
}

/// A label of a host name: at most 63 letters, digits and hyphens.
const LABEL: &str = "[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?";

/// Letters of alphabets that validators accept in host names: lower case, without those that stand for two letters.
const ALPHABETS: &str = "[a-z0-9[\\p{Ll}&&[ß-ž]--[ŀŉ]]ά-ώа-џґ]";

/// The same for Chinese, Japanese and Korean.
const SIGNS: &str = "[a-z0-9ぁ-ゖァ-ヺー一-龥가-힣]";

/// A letter of either.
const LETTER: &str = "[a-z[\\p{Ll}&&[ß-ž]--[ŀŉ]]ά-ώа-џґぁ-ゖァ-ヺー一-龥가-힣]";

/// Letters, including capitals, for use in a class.
const WRITTEN_LETTERS: &str = "[\\p{L}&&[À-ɏͰ-ԯぁ-ヿ一-龥가-힣]]";

/// Returns a label of a host name that may have letters beyond ASCII. In its sent form, a label has at most 63 letters,
/// and hyphens in its third and fourth places mark that encoding.
fn wide_label() -> String {
    let (end, hyphen) = ("[a-zA-Z0-9]", "[a-zA-Z0-9-]");
    let narrow = format!(
        "{end}(?:{hyphen}?{end}|{hyphen}{{2}}{end}|{hyphen}(?:{end}{hyphen}|-{end}){hyphen}{{0,58}}{end})?"
    );
    format!("(?:{narrow}|(?:{ALPHABETS}-?){{0,29}}{ALPHABETS}|(?:{SIGNS}-?){{0,13}}{SIGNS})")
}

/// An address of four bytes.
const IPV4: &str =
    "(?:(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])\\.){3}(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";

/// Returns the expression of eight groups. The last two may be written as four bytes, and `::` stands for one or more
/// groups (RFC 4291).
fn ipv6() -> String {
    let group = "[0-9a-fA-F]{1,4}";
    let mut forms = vec![format!("(?:{group}:){{7}}{group}"), format!("(?:{group}:){{6}}{IPV4}")];
    for before in 0..=7 {
        // each group before the gap has a colon after it, and the last of these is one of the gap's two colons
        let head = if before == 0 { ":".to_owned() } else { format!("(?:{group}:){{{before}}}") };
        let after = 7 - before;
        forms.push(match after {
            0 => format!("{head}:"),
            _ => format!("{head}:(?:{group}(?::{group}){{0,{}}})?", after - 1),
        });
        if before <= 5 {
            forms.push(format!("{head}:(?:{group}:){{0,{}}}{IPV4}", 5 - before));
        }
    }
    format!("(?:{})", forms.join("|"))
}

/// Letters beyond ASCII of RFC 3987, for use in a class.
const BEYOND_ASCII: &str =
    "\\u{A0}-\\u{D7FF}\\u{F900}-\\u{FDCF}\\u{FDF0}-\\u{FFEF}\\u{10000}-\\u{1FFFD}\\u{20000}-\\u{2FFFD}";

/// Addresses of RFC 3986, or of RFC 3987 if they have letters beyond ASCII, and templates of RFC 6570.
fn addresses() -> Vec<Named> {
    let taken = "[a-zA-Z][a-zA-Z0-9+.-]*:[^\\x00-\\x20]*";
    let taken_reference = "[^\\x00-\\x20]*";
    let of = |beyond: &str, label: &str| {
        let parts = Address::new(beyond, label);
        (Format::of(&parts.absolute(), taken), Format::of(&parts.reference(), taken_reference))
    };
    // underscores are in use, though host names may not have them
    let label = "[a-zA-Z0-9_](?:[a-zA-Z0-9_-]{0,61}[a-zA-Z0-9_])?";
    let (uri, uri_reference) = of("", label);
    let (iri, iri_reference) = of(BEYOND_ASCII, &format!("(?:{label}|{})", wide_label()));
    let variable = "(?:[a-zA-Z0-9_]|%[0-9a-fA-F]{2})";
    let variable = format!("{variable}(?:\\.?{variable})*(?::[1-9][0-9]{{0,3}}|\\*)?");
    let template = format!(
        "(?:[!#$&(-;=?-\\[\\]_a-z~]|%[0-9a-fA-F]{{2}}|\\{{[+#./;?&]?{variable}(?:,{variable})*\\}})*"
    );
    let any_template = "(?:[^\\x00-\\x20{}]|\\{[^{}]*\\})*";
    vec![
        ("uri", uri),
        ("uri-reference", uri_reference),
        ("iri", iri),
        ("iri-reference", iri_reference),
        ("uri-template", Format::of(&template, any_template)),
    ]
}

/// Regular expressions of the parts of an address.
struct Address {
    /// A letter of a path, except slashes.
    letter: String,
    /// A letter of the first path segment of an address without a scheme, which has no colon.
    letter_without_colon: String,
    /// What follows two slashes.
    authority: String,
    /// Query and fragment, both optional.
    end: String,
}

impl Address {
    /// Builds the parts from the letters allowed besides ASCII and the labels of host names.
    fn new(beyond: &str, label: &str) -> Self {
        let escaped = "%[0-9a-fA-F]{2}";
        let letter = |more: &str| format!("(?:[a-zA-Z0-9._~!$&'()*+,;={more}{beyond}-]|{escaped})");
        let user = letter(":");
        let port = "[0-9]{1,4}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]";
        let host = format!("{label}(?:\\.{label})*\\.?|\\[{}\\]", ipv6());
        let authority = format!("(?:{user}*@)?(?:{host})(?::(?:{port}))?");
        let end = letter(":@/?");
        Self {
            letter: letter(":@"),
            letter_without_colon: letter("@"),
            authority,
            end: format!("(?:\\?{end}*)?(?:#{end}*)?"),
        }
    }

    /// Returns a host and a path, or a path alone after two slashes.
    fn after_slashes(&self) -> String {
        let Self { letter, authority, .. } = self;
        format!("//(?:{authority}(?:/(?:{letter}|/)*)?|/(?:{letter}|/)*)")
    }

    /// Returns an address with a scheme, and something after it.
    fn absolute(&self) -> String {
        let Self { letter, end, .. } = self;
        let slashes = self.after_slashes();
        format!(
            "[a-zA-Z][a-zA-Z0-9+.-]*:(?:{slashes}|/(?:{letter}(?:{letter}|/)*)?|{letter}(?:{letter}|/)*){end}"
        )
    }

    /// Returns an address with or without a scheme.
    fn reference(&self) -> String {
        let Self { letter, letter_without_colon, end, .. } = self;
        let (absolute, slashes) = (self.absolute(), self.after_slashes());
        let path = format!("/(?:{letter}(?:{letter}|/)*)?|{letter_without_colon}+(?:/(?:{letter}|/)*)?");
        format!("(?:{absolute}|(?:{slashes}|{path})?{end})")
    }
}

/// JSON pointers (RFC 6901) and UUIDs (RFC 4122).
fn pointers() -> Vec<Named> {
    let pointer = "(?:/(?:[^/~]|~[01])*)*";
    let relative = format!("(?:0|[1-9][0-9]*)(?:#|{pointer})");
    let any_relative = format!("(?:0|[1-9][0-9]*)(?:[+-](?:0|[1-9][0-9]*))?(?:#|{pointer})");
    let four = "[0-9a-fA-F]{4}";
    vec![
        ("json-pointer", Format::exact(pointer)),
        ("relative-json-pointer", Format::of(&relative, &any_relative)),
        ("uuid", Format::exact(&format!("{four}{four}-{four}-{four}-{four}-{four}{four}{four}"))),
    ]
}
