//! Modes of deinterlacing.

/// Mode of deinterlacing a frame that was recorded as two fields.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Deinterlace {
    /// One frame, at the time of the first field.
    #[default]
    Frame,
    /// Two frames, which keep the smooth motion: 50 per second of 25.
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
