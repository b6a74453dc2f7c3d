//! Cases on the bytes that are read. In: a filled tier. Out: a panic where bytes are not those of the blocks.

use hyperrag_core::{Piece, Slot};

use super::harness::{
    Case, Harness, check_lengths, check_pieces, check_whole, contents, frame_bytes, mixed,
    name_cases, new_blocks, pieces_of, read_pieces,
};

pub(super) fn cases() -> Vec<Case> {
    name_cases![Case:
        a_block_of_one_byte,
        a_block_of_a_frame_less_a_byte,
        a_block_of_a_frame,
        a_block_of_a_frame_and_a_byte,
        a_block_of_several_frames,
        a_block_of_several_frames_and_a_bit,
        a_block_of_twenty_megabytes,
        blocks_of_mixed_lengths,
        many_small_blocks,
        a_block_of_zeros,
        a_block_that_looks_like_a_protocol,
        a_block_of_all_byte_values,
        frames_in_reverse,
        frames_of_several_blocks_shuffled,
        layer_by_layer_over_all_blocks,
        a_piece_asked_for_repeatedly,
        a_frame_from_the_middle,
        the_last_frame_alone,
        an_absent_block,
        absent_blocks_among_present_ones,
        a_known_slot_of_an_unknown_table,
        a_table_that_differs_in_one_bit,
        a_frame_past_the_end_is_not_made_up,
        a_block_asked_for_with_a_wrong_length,
        a_block_read_again_and_again,
    ]
}

fn a_block_of_one_byte(harness: &dyn Harness) {
    check_lengths(harness, &[1]);
}

fn a_block_of_a_frame_less_a_byte(harness: &dyn Harness) {
    check_lengths(harness, &[frame_bytes(harness) - 1]);
}

fn a_block_of_a_frame(harness: &dyn Harness) {
    check_lengths(harness, &[frame_bytes(harness)]);
}

fn a_block_of_a_frame_and_a_byte(harness: &dyn Harness) {
    check_lengths(harness, &[frame_bytes(harness) + 1]);
}

fn a_block_of_several_frames(harness: &dyn Harness) {
    check_lengths(harness, &[4 * frame_bytes(harness)]);
}

fn a_block_of_several_frames_and_a_bit(harness: &dyn Harness) {
    check_lengths(harness, &[3 * frame_bytes(harness) + 12_345]);
}

fn a_block_of_twenty_megabytes(harness: &dyn Harness) {
    check_lengths(harness, &[20_000_003]);
}

fn blocks_of_mixed_lengths(harness: &dyn Harness) {
    let frame = frame_bytes(harness);
    check_lengths(harness, &[17, frame + 3, 1, 2 * frame, 65_537, frame - 1, 4096, 63, 64, 65]);
}

fn many_small_blocks(harness: &dyn Harness) {
    let lengths: Vec<u64> = (1..=300).collect();
    check_lengths(harness, &lengths);
}

fn a_block_of_zeros(harness: &dyn Harness) {
    check_made_of(harness, |_| 0);
}

fn a_block_that_looks_like_a_protocol(harness: &dyn Harness) {
    let text = b"\r\n$-1\r\n*0\r\n-ERR no\r\n\0HTTP/1.1 404 Not Found\r\n\r\n<Error/>";
    check_made_of(harness, |n| text[n % text.len()]);
}

fn a_block_of_all_byte_values(harness: &dyn Harness) {
    check_made_of(harness, |n| u8::try_from(n % 256).unwrap());
}

/// Fills the tier with a block of one and a half frames, each byte by its number, and reads it.
fn check_made_of(harness: &dyn Harness, byte: impl Fn(usize) -> u8) {
    let mut blocks = new_blocks(&[frame_bytes(harness) * 3 / 2]);
    let length = blocks[0].1.len();
    blocks[0].1 = (0..length).map(byte).collect::<Vec<u8>>().into();
    harness.fill(&blocks);
    check_whole(harness, &blocks);
}

fn frames_in_reverse(harness: &dyn Harness) {
    let blocks = new_blocks(&[5 * frame_bytes(harness) + 7]);
    harness.fill(&blocks);
    let mut pieces = pieces_of(&*harness.tier(), &blocks[0].0);
    pieces.reverse();
    check_pieces(harness, &blocks, &pieces);
}

fn frames_of_several_blocks_shuffled(harness: &dyn Harness) {
    let frame = frame_bytes(harness);
    let blocks = new_blocks(&[3 * frame, 2 * frame + 1, 4 * frame - 1, 10, frame]);
    harness.fill(&blocks);
    let tier = harness.tier();
    let mut pieces: Vec<Piece> =
        blocks.iter().flat_map(|(blob, _)| pieces_of(&*tier, blob)).collect();
    for round in 0..5 {
        pieces.sort_by_key(|piece| {
            mixed(round ^ (u64::from(piece.blob.key.slot.0) << 32) ^ u64::from(piece.frame))
        });
        check_pieces(harness, &blocks, &pieces);
    }
}

fn layer_by_layer_over_all_blocks(harness: &dyn Harness) {
    let frame = frame_bytes(harness);
    let blocks = new_blocks(&[3 * frame + 5; 8]);
    harness.fill(&blocks);
    let tier = harness.tier();
    let pieces: Vec<Piece> = (0..blocks[0].0.frames(tier.shape().frame_bytes))
        .flat_map(|frame| blocks.iter().map(move |(blob, _)| Piece { blob: *blob, frame }))
        .collect();
    check_pieces(harness, &blocks, &pieces);
}

fn a_piece_asked_for_repeatedly(harness: &dyn Harness) {
    let blocks = new_blocks(&[2 * frame_bytes(harness), 100]);
    harness.fill(&blocks);
    let [first, second] = [0, 1].map(|n| Piece { blob: blocks[n].0, frame: 0 });
    check_pieces(harness, &blocks, &[first, first, second, first, second, second, first]);
}

fn a_frame_from_the_middle(harness: &dyn Harness) {
    let blocks = new_blocks(&[5 * frame_bytes(harness)]);
    harness.fill(&blocks);
    let pieces = pieces_of(&*harness.tier(), &blocks[0].0);
    check_pieces(harness, &blocks, &pieces[pieces.len() / 2..=pieces.len() / 2]);
}

fn the_last_frame_alone(harness: &dyn Harness) {
    let blocks = new_blocks(&[2 * frame_bytes(harness) + 1]);
    harness.fill(&blocks);
    let pieces = pieces_of(&*harness.tier(), &blocks[0].0);
    check_pieces(harness, &blocks, &pieces[pieces.len() - 1..]);
}

fn an_absent_block(harness: &dyn Harness) {
    check_whole(harness, &[]);
    let absent = new_blocks(&[3 * frame_bytes(harness)]);
    check_pieces(harness, &[], &pieces_of(&*harness.tier(), &absent[0].0));
}

fn absent_blocks_among_present_ones(harness: &dyn Harness) {
    let frame = frame_bytes(harness);
    let (present, absent) = (new_blocks(&[frame + 1; 6]), new_blocks(&[frame + 1; 6]));
    harness.fill(&present);
    let tier = harness.tier();
    let pairs = present.iter().zip(&absent).flat_map(|(present, absent)| [present.0, absent.0]);
    let pieces: Vec<Piece> = pairs.flat_map(|blob| pieces_of(&*tier, &blob)).collect();
    check_pieces(harness, &present, &pieces);
}

fn a_known_slot_of_an_unknown_table(harness: &dyn Harness) {
    let blocks = new_blocks(&[1000, 2000]);
    harness.fill(&blocks);
    let mut blob = new_blocks(&[1000])[0].0;
    blob.key.slot = Slot(1);
    check_pieces(harness, &blocks, &[Piece { blob, frame: 0 }]);
}

fn a_table_that_differs_in_one_bit(harness: &dyn Harness) {
    let blocks = new_blocks(&[1000]);
    harness.fill(&blocks);
    let mut other = new_blocks(&[1000])[0].0;
    other.key.table = blocks[0].0.key.table;
    other.key.table[15] ^= 1;
    let bytes = contents(&other);
    harness.fill(&[(other, bytes.clone())]);
    check_whole(harness, &[blocks[0].clone(), (other, bytes)]);
}

fn a_frame_past_the_end_is_not_made_up(harness: &dyn Harness) {
    let blocks = new_blocks(&[frame_bytes(harness) + 1, 50]);
    harness.fill(&blocks);
    let blob = blocks[0].0;
    let frames = blob.frames(harness.tier().shape().frame_bytes);
    let pieces = [frames, frames + 1, u32::MAX].map(|frame| Piece { blob, frame });
    for answer in read_pieces(&*harness.tier(), &pieces) {
        let made_up = matches!(&answer, Ok(Some(bytes)) if !bytes.is_empty());
        assert!(!made_up || !harness.exact(), "bytes for a frame past the end");
    }
    check_whole(harness, &blocks);
}

fn a_block_asked_for_with_a_wrong_length(harness: &dyn Harness) {
    let blocks = new_blocks(&[5000, 50]);
    harness.fill(&blocks);
    for bytes in [1, 4999, 5001, 50_000_000, u64::MAX / 2] {
        let mut blob = blocks[0].0;
        blob.bytes = bytes;
        // Bytes may come, of whatever there is: the caller's checksum refuses them.
        read_pieces(&*harness.tier(), &[Piece { blob, frame: 0 }]);
    }
    check_pieces(harness, &blocks, &pieces_of(&*harness.tier(), &blocks[1].0));
}

fn a_block_read_again_and_again(harness: &dyn Harness) {
    let blocks = new_blocks(&[frame_bytes(harness) + 9]);
    harness.fill(&blocks);
    for _ in 0..20 {
        check_whole(harness, &blocks);
    }
}
