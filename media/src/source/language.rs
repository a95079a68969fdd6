//! Language tags: containers write three letters, two, or a whole tag; players expect the shortest (BCP 47).

use isolang::Language;

/// Bibliographic codes of ISO 639-2, which Matroska and DVDs use, with the codes of ISO 639-3.
const BIBLIOGRAPHIC: [(&str, &str); 20] = [
    ("alb", "sqi"),
    ("arm", "hye"),
    ("baq", "eus"),
    ("bur", "mya"),
    ("chi", "zho"),
    ("cze", "ces"),
    ("dut", "nld"),
    ("fre", "fra"),
    ("geo", "kat"),
    ("ger", "deu"),
    ("gre", "ell"),
    ("ice", "isl"),
    ("mac", "mkd"),
    ("mao", "mri"),
    ("may", "msa"),
    ("per", "fas"),
    ("rum", "ron"),
    ("slo", "slk"),
    ("tib", "bod"),
    ("wel", "cym"),
];

/// Returns the language of a tag, and the rest of the tag, such as `-BR`.
fn parse(tag: &str) -> Option<(Language, &str)> {
    let end = tag.find('-').unwrap_or(tag.len());
    let (primary, rest) = tag.split_at(end);
    let primary = primary.to_ascii_lowercase();
    let code =
        BIBLIOGRAPHIC.iter().find(|(old, _)| *old == primary).map_or(primary.as_str(), |(_, code)| *code);
    let language = if code.len() == 2 { Language::from_639_1(code) } else { Language::from_639_3(code) };
    language.filter(|language| *language != Language::Und).map(|language| (language, rest))
}

/// Returns the tag as BCP 47: with two letters if the language has a two-letter code. `None` if the tag names
/// no language.
pub(crate) fn bcp_47(tag: &str) -> Option<String> {
    let (language, rest) = parse(tag)?;
    let sane = rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') && !rest.ends_with('-');
    sane.then(|| format!("{}{rest}", language.to_639_1().unwrap_or(language.to_639_3())))
}

/// Returns the three-letter code, for MP4.
pub(crate) fn three_letters(tag: &str) -> Option<String> {
    parse(tag).map(|(language, _)| language.to_639_3().to_owned())
}

/// Returns the language's name in that language, or in English.
pub(crate) fn name(tag: &str) -> Option<&'static str> {
    parse(tag).map(|(language, _)| language.to_autonym().unwrap_or(language.to_name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_as_short_as_they_can_be() {
        let short =
            ["eng", "ger", "deu", "DE", "pt-BR", "zho", "gsw", "chi-Hant"].map(|tag| bcp_47(tag).unwrap());
        assert_eq!(short, ["en", "de", "de", "de", "pt-BR", "zh", "gsw", "zh-Hant"]);
        for none in ["", "und", "x", "123", "qqq", "english", "de-", "en-\"x"] {
            assert_eq!(bcp_47(none), None, "{none}");
        }
    }

    #[test]
    fn languages_have_names_and_three_letters() {
        assert_eq!(["ger", "fr", "jpn"].map(|tag| name(tag).unwrap()), ["Deutsch", "français", "日本語"]);
        assert_eq!(["ger", "pt-BR"].map(|tag| three_letters(tag).unwrap()), ["deu", "por"]);
        assert_eq!(three_letters("und"), None);
    }
}
