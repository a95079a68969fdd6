//! Time in integer ticks of a rational timebase, never in floats.

use std::{fmt, str::FromStr};

/// A positive rational in lowest terms, written `30000/1001`: a frame rate in Hz, or a timebase in seconds
/// per tick.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rational {
    num: u32,
    den: u32,
}

impl Rational {
    /// Returns `num / den` in lowest terms; `None` if either is zero.
    pub fn new(num: u32, den: u32) -> Option<Self> {
        if num == 0 || den == 0 {
            return None;
        }
        let divisor = gcd(num, den);
        Some(Self { num: num / divisor, den: den / divisor })
    }

    /// Returns the numerator.
    pub fn num(self) -> u32 {
        self.num
    }

    /// Returns the denominator.
    pub fn den(self) -> u32 {
        self.den
    }

    /// Returns `1 / self`: a frame rate's timebase, or a timebase's rate.
    #[must_use]
    pub fn inverse(self) -> Self {
        Self { num: self.den, den: self.num }
    }

    /// Returns the nearest float: for display and estimates, never for a cut.
    pub fn to_f64(self) -> f64 {
        f64::from(self.num) / f64::from(self.den)
    }

    /// Converts `ticks` of this timebase to ticks of `other`, rounded to nearest, halves away from zero.
    pub fn rescale(self, ticks: i64, other: Self) -> i64 {
        let num = i128::from(self.num) * i128::from(other.den);
        let den = i128::from(self.den) * i128::from(other.num);
        let product = i128::from(ticks) * num;
        let half = if product < 0 { -den / 2 } else { den / 2 };
        i64::try_from((product + half) / den).unwrap_or(if ticks < 0 { i64::MIN } else { i64::MAX })
    }

    /// Converts `ticks` of this timebase to whole milliseconds, rounded to nearest.
    pub fn to_ms(self, ticks: i64) -> i64 {
        self.rescale(ticks, Self { num: 1, den: 1000 })
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl fmt::Display for Rational {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.num, self.den)
    }
}

impl fmt::Debug for Rational {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not a positive rational such as `30000/1001` or `25`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a positive rational such as 30000/1001")]
pub struct ParseRationalError(String);

impl FromStr for Rational {
    type Err = ParseRationalError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (num, den) = text.split_once(['/', ':']).unwrap_or((text, "1"));
        num.parse()
            .ok()
            .zip(den.parse().ok())
            .and_then(|(num, den)| Self::new(num, den))
            .ok_or_else(|| ParseRationalError(text.to_owned()))
    }
}

impl serde::Serialize for Rational {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Rational {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rescales_without_drift_over_a_day() {
        let ntsc = Rational::new(1001, 30_000).unwrap();
        let mpeg = Rational::new(1, 90_000).unwrap();
        assert_eq!(ntsc.rescale(2_589_410, mpeg), 2_589_410 * 3003);
        assert_eq!(mpeg.rescale(-3003, ntsc), -1);
        assert_eq!(mpeg.rescale(1501, ntsc), 0);
        assert_eq!(mpeg.rescale(1502, ntsc), 1);
    }

    #[test]
    fn text_round_trips_in_lowest_terms() {
        assert_eq!("60000/2002".parse::<Rational>().unwrap().to_string(), "30000/1001");
        assert_eq!("25".parse::<Rational>().unwrap().to_string(), "25/1");
        assert!(
            "0/1".parse::<Rational>().is_err()
                && "1/0".parse::<Rational>().is_err()
                && "x".parse::<Rational>().is_err()
        );
    }
}
