//! Labels of audio tracks in a player's menu.

use crate::source::{
    language,
    probe::{AudioTrack, Role},
};

/// The label of an audio track.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct AudioTrackLabel {
    /// Number of the audio track within the source, from 0.
    pub track: u32,
    /// Language as the source tags it.
    #[serde(default)]
    pub language: Option<String>,
    /// Title that the source gives it.
    #[serde(default)]
    pub title: Option<String>,
    /// Role, if it is not the main sound.
    #[serde(default)]
    pub role: Option<Role>,
    /// Whether the source marks it as the default.
    pub default: bool,
}

impl AudioTrackLabel {
    /// Returns the label of a source's audio track number `index`.
    pub(crate) fn of(track: &AudioTrack, index: u32) -> Self {
        Self {
            track: index,
            language: track.language.clone(),
            title: track.title.clone(),
            role: track.role,
            default: track.default,
        }
    }

    /// Returns the name for menus: its title, or its language in that language, or its number.
    pub(crate) fn name(&self) -> String {
        if let Some(title) = &self.title {
            return title.clone();
        }
        let language = self.language.as_deref().and_then(language::name).map(str::to_owned);
        let name = language.unwrap_or_else(|| format!("Track {}", self.track + 1));
        match self.role {
            Some(Role::Commentary) => format!("{name} (commentary)"),
            Some(Role::Description) => format!("{name} (audio description)"),
            None => name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_track_has_a_name_whatever_is_known_of_it() {
        let label = AudioTrackLabel { track: 1, language: None, title: None, role: None, default: false };
        assert_eq!(label.name(), "Track 2");
        let german = AudioTrackLabel { language: Some("ger".to_owned()), ..label };
        assert_eq!(german.name(), "Deutsch");
        assert_eq!(
            AudioTrackLabel { role: Some(Role::Commentary), ..german.clone() }.name(),
            "Deutsch (commentary)"
        );
        assert_eq!(AudioTrackLabel { title: Some("Regie".to_owned()), ..german }.name(), "Regie");
    }
}
