//! Pictures of clips: moving detail, so that neighbours differ, and the frame's number in blocks that survive
//! coding.

use std::sync::LazyLock;

/// Width of a clip in pixels.
pub const WIDTH: usize = 320;
/// Height of a clip in pixels.
pub const HEIGHT: usize = 180;

/// Blocks of a row: one per bit.
const BITS: usize = 16;
/// Side of a block in pixels at full size: 8 pixels at half the size are still one whole transform block.
const BLOCK: usize = 16;
/// Position of the blocks; above the number's bits, below their complement, so that no misread passes.
const LEFT: usize = 32;
const TOP: usize = 72;
const BLACK: u8 = 30;
const WHITE: u8 = 220;
/// Blocks darker than this are ones.
const MIDDLE: u32 = 125;

/// Side of the texture, which repeats beyond it.
const TEXTURE: usize = 512;
/// Pixels that the texture moves per frame.
const SPEED: usize = 3;

/// Smooth noise, like grass under a panning camera.
static TEXTURE_PIXELS: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut state = 0x2545_f491_u32;
    let noise = (0..TEXTURE * TEXTURE).map(|_| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        f32::from((state >> 24) as u8) - 127.5
    });
    let mut pixels: Vec<f32> = noise.collect();
    for _ in 0..3 {
        pixels = blurred(&pixels, 1);
        pixels = blurred(&pixels, TEXTURE);
    }
    pixels.iter().map(|value| (125.0 + value * 4.0).clamp(16.0, 235.0) as u8).collect()
});

/// Returns the mean of five pixels in a row or a column, wrapped around.
fn blurred(pixels: &[f32], step: usize) -> Vec<f32> {
    let length = pixels.len();
    let at = |index: usize, steps: usize| pixels[(index + length + steps * step - 2 * step) % length];
    (0..length).map(|index| (0..5).map(|steps| at(index, steps)).sum::<f32>() / 5.0).collect()
}

/// Returns frame `number` as planar YUV 4:2:0.
pub fn picture(number: u16) -> Vec<u8> {
    moved_picture(number, number)
}

/// Returns a picture that has moved as far as frame `moved`, and carries a number.
pub fn moved_picture(number: u16, moved: u16) -> Vec<u8> {
    let mut pixels = vec![128; WIDTH * HEIGHT * 3 / 2];
    let offset = usize::from(moved) * SPEED;
    for (y, row) in pixels[..WIDTH * HEIGHT].chunks_exact_mut(WIDTH).enumerate() {
        // The upper half moves to the left, the lower one upwards.
        let (x, y) = if y < HEIGHT / 2 { (offset % TEXTURE, y) } else { (0, (y + offset) % TEXTURE) };
        let line = &TEXTURE_PIXELS[y * TEXTURE..(y + 1) * TEXTURE];
        let first = WIDTH.min(TEXTURE - x);
        row[..first].copy_from_slice(&line[x..x + first]);
        row[first..].copy_from_slice(&line[..WIDTH - first]);
    }
    for (line, bits) in [number, !number].into_iter().enumerate() {
        for bit in 0..BITS {
            let value = if bits >> bit & 1 == 1 { BLACK } else { WHITE };
            for y in 0..BLOCK {
                let start = (TOP + line * BLOCK + y) * WIDTH + LEFT + bit * BLOCK;
                pixels[start..start + BLOCK].fill(value);
            }
        }
    }
    pixels
}

/// Returns the number in a grey picture of this width, which may be scaled down by two; `None` if it cannot
/// be read for sure.
pub fn read_number(grey: &[u8], width: usize) -> Option<u16> {
    let scale = WIDTH / width;
    let block = BLOCK / scale;
    let line = |line: usize| {
        let mut bits = 0;
        for bit in 0..BITS {
            // The middle of the block: its borders are blurred.
            let (x, y) = (LEFT / scale + bit * block + block / 4, TOP / scale + line * block + block / 4);
            let rows = grey.chunks_exact(width).skip(y).take(block / 2);
            let sum: u32 = rows.flat_map(|row| &row[x..x + block / 2]).map(|&value| u32::from(value)).sum();
            let dark = sum / u32::try_from(block / 2 * (block / 2)).unwrap() < MIDDLE;
            bits |= u16::from(dark) << bit;
        }
        bits
    };
    (line(0) == !line(1)).then(|| line(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_back_or_refused() {
        for number in [0, 1, 0x5555, 1559, u16::MAX] {
            assert_eq!(read_number(&picture(number)[..WIDTH * HEIGHT], WIDTH), Some(number));
        }
        let mut pixels = picture(7);
        for y in TOP..TOP + BLOCK {
            pixels[y * WIDTH + LEFT..][..BLOCK].fill(WHITE);
        }
        assert_eq!(read_number(&pixels[..WIDTH * HEIGHT], WIDTH), None);
    }

    #[test]
    fn neighbours_differ() {
        let (one, next) = (picture(100), picture(101));
        let difference: u64 =
            one.iter().zip(&next).take(WIDTH * HEIGHT).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
        assert!(difference > (WIDTH * HEIGHT * 8) as u64, "{difference}");
    }
}
