//! How interlaced frames become pictures.

/// What becomes of a frame that was recorded as two fields, one after the other?
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Deinterlace {
    /// One picture, at the time of its first field.
    #[default]
    Frame,
    /// Two, so that motion is as smooth as it was: 50 a second of 25 frames.
    Field,
}

impl std::str::FromStr for Deinterlace {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "frame" => Ok(Self::Frame),
            "field" => Ok(Self::Field),
            _ => Err(format!(
                "no way to deinterlace {text:?}: there are 'frame', a picture of each frame, and 'field', one of each field"
            )),
        }
    }
}
