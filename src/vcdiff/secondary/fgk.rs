//! FGK: adaptive Huffman coding (Knuth, "Dynamic Huffman Coding", Journal of Algorithms 6).
//!
//! Encoder and decoder grow the same tree. Its nodes stand in a list of non-decreasing weight; those of
//! equal weight form a block whose last node is the leader. After each symbol the path from its leaf to the
//! root gains weight, each node first changing places with its block's leader. Symbols not seen yet hang in
//! a list from the one leaf of weight 0; after the path to that leaf, a symbol's place in the list is coded.
//!
//! The tree must be the one xdelta3 grows, so its deviation from Knuth is kept: once all symbols were seen,
//! the first node of the list keeps its block when it gains weight.
//!
//! The tree lives on over all windows, and xdelta3's *encoder* also feeds it the sections that it then stores
//! uncompressed because they did not shrink. Its decoder forgets that and fails on most real data; ours
//! [learns](Tree::learn) from such sections, and so decodes deltas that xdelta3 cannot. Our encoder stores
//! every section that it fed to the tree compressed, grown or not, so that xdelta3 can decode it.

use super::bits::{BitReader, BitWriter};

const SYMBOLS: usize = 256;
const NODES: usize = 2 * SYMBOLS - 1;
/// No node.
const NIL: u16 = u16::MAX;

#[derive(Clone, Copy)]
struct Node {
    weight: u32,
    parent: u16,
    /// Children; for symbols not seen yet, their neighbours in the list of those.
    children: [u16; 2],
    /// Neighbours in the order of weight.
    left: u16,
    right: u16,
    block: u16,
}

const LEFT: usize = 0;
const RIGHT: usize = 1;

/// The tree for one kind of section.
pub(super) struct Tree {
    /// Leaves by symbol, then inner nodes in the order they are made.
    nodes: [Node; NODES],
    used: usize,
    root: u16,
    /// First of the list of symbols not seen yet, which is the leaf of weight 0.
    zeros: u16,
    zero_count: u32,
    /// Leader of each block, and the blocks that are free.
    leaders: Vec<u16>,
    free: Vec<u16>,
}

impl Tree {
    pub(super) fn new() -> Self {
        let blank = Node { weight: 0, parent: NIL, children: [NIL; 2], left: NIL, right: NIL, block: NIL };
        let mut nodes = [blank; NODES];
        for (symbol, node) in nodes[..SYMBOLS].iter_mut().enumerate() {
            let symbol = symbol as u16;
            node.children[LEFT] = symbol.checked_sub(1).unwrap_or(NIL);
            node.children[RIGHT] = if symbol + 1 < SYMBOLS as u16 { symbol + 1 } else { NIL };
        }
        Tree {
            nodes,
            used: SYMBOLS,
            root: 0,
            zeros: 0,
            zero_count: SYMBOLS as u32,
            leaders: Vec::new(),
            free: Vec::new(),
        }
    }

    /// Decompresses a section to exactly `size` bytes.
    pub(super) fn decode(&mut self, bytes: &[u8], size: usize) -> Result<Vec<u8>, &'static str> {
        let mut bits = BitReader::new(bytes);
        // Most symbols take at least a bit.
        let mut out = Vec::with_capacity(size.min(bytes.len().saturating_mul(8)));
        while out.len() < size {
            let symbol = self.symbol(&mut bits)?;
            if self.get(self.root).weight == u32::MAX {
                return Err("FGK sections exceed 4 GiB");
            }
            self.update(symbol);
            out.push(symbol as u8);
        }
        bits.finish()?;
        Ok(out)
    }

    /// Feeds the tree with a section that was stored uncompressed.
    pub(super) fn learn(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if self.get(self.root).weight < u32::MAX {
                self.update(byte.into());
            }
        }
    }

    /// Compresses a section. Once nearly 4 GiB were compressed, the result is `None`, from then on always.
    pub(super) fn encode(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        const LONGEST: u32 = 64 << 20;
        if bytes.len() > LONGEST as usize || self.get(self.root).weight > u32::MAX - LONGEST {
            return None;
        }
        let mut bits = BitWriter::default();
        for &byte in bytes {
            self.write(byte.into(), &mut bits);
            self.update(byte.into());
        }
        Some(bits.finish())
    }

    fn write(&self, symbol: u16, bits: &mut BitWriter) {
        let unseen = self.get(symbol).weight == 0;
        let leaf = if unseen { self.zeros } else { symbol };
        let mut path = Vec::with_capacity(32);
        let mut at = leaf;
        while at != self.root {
            let parent = self.get(at).parent;
            path.push(self.get(parent).children[RIGHT] == at);
            at = parent;
        }
        path.iter().rev().for_each(|&right| bits.number(right.into(), 1));
        if unseen && self.zero_count > 1 {
            let mut place = 0;
            let mut at = self.zeros;
            while at != symbol {
                place += 1;
                at = self.get(at).children[RIGHT];
            }
            bits.number(place, self.place_bits());
        }
    }

    /// How many bits a place in the list of symbols not seen yet takes.
    fn place_bits(&self) -> u32 {
        u32::BITS - (self.zero_count - 1).leading_zeros()
    }

    fn node(&mut self, id: u16) -> &mut Node {
        &mut self.nodes[usize::from(id)]
    }

    fn get(&self, id: u16) -> &Node {
        &self.nodes[usize::from(id)]
    }

    fn symbol(&self, bits: &mut BitReader) -> Result<u16, &'static str> {
        let mut at = self.root;
        while at != self.zeros && self.get(at).children[LEFT] != NIL {
            at = self.get(at).children[bits.bit()? as usize];
        }
        if at == self.zeros && self.zero_count > 1 {
            let place = bits.number(self.place_bits())?;
            for _ in 0..place {
                match self.get(at).children[RIGHT] {
                    NIL => return Err("an FGK section has an invalid code"),
                    next => at = next,
                }
            }
        }
        Ok(at)
    }

    fn update(&mut self, symbol: u16) {
        if self.get(symbol).weight == 0 {
            self.insert(symbol);
        }
        let mut at = symbol;
        while at != self.root {
            if self.get(at).weight != 0 {
                self.swap_with_leader(at);
                self.enter_next_block(at);
            }
            self.node(at).weight += 1;
            at = self.get(at).parent;
        }
        self.node(at).weight += 1;
    }

    /// Exchanges the places of a node and the leader of its block, unless the leader is its parent.
    fn swap_with_leader(&mut self, node: u16) {
        let block = self.get(node).block;
        let leader = self.leaders[usize::from(block)];
        if leader == node || leader == self.get(node).parent {
            return;
        }
        // In the list; the leader is somewhere to the right.
        let (a, b) = (*self.get(node), *self.get(leader));
        if a.right == leader {
            (self.node(node).left, self.node(leader).right) = (leader, node);
        } else {
            (self.node(node).left, self.node(leader).right) = (b.left, a.right);
            self.node(b.left).right = node;
            self.node(a.right).left = leader;
        }
        (self.node(node).right, self.node(leader).left) = (b.right, a.left);
        self.node(b.right).left = node;
        if a.left != NIL {
            self.node(a.left).right = leader;
        }
        // In the tree.
        let side =
            |tree: &Self, parent: u16, child: u16| (tree.get(parent).children[RIGHT] == child) as usize;
        let (side_a, side_b) = (side(self, a.parent, node), side(self, b.parent, leader));
        self.node(a.parent).children[side_a] = leader;
        self.node(b.parent).children[side_b] = node;
        (self.node(node).parent, self.node(leader).parent) = (b.parent, a.parent);
        self.leaders[usize::from(block)] = node;
    }

    /// Moves a leader whose weight is about to grow into the next block, or a new one.
    fn enter_next_block(&mut self, id: u16) {
        let node = *self.get(id);
        let joins = node.right != self.root && node.weight + 1 == self.get(node.right).weight;
        let [left_child, right_child] = node.children;
        if left_child != NIL && left_child == self.zeros && node.left == right_child {
            // Parent of the leaf of weight 0: it has the weight of its other child, and shares its block.
            if joins {
                self.free.push(node.block);
                let block = self.get(node.right).block;
                self.node(id).block = block;
                self.node(right_child).block = block;
            }
            return;
        }
        // That other child (its parent follows at once), or the first node when no zeros are left.
        if node.left == self.zeros {
            return;
        }
        if self.get(node.left).block == node.block {
            self.leaders[usize::from(node.block)] = node.left;
        } else {
            self.free.push(node.block);
        }
        self.node(id).block = if joins { self.get(node.right).block } else { self.new_block(id) };
    }

    fn new_block(&mut self, leader: u16) -> u16 {
        let block = self.free.pop().unwrap_or_else(|| {
            self.leaders.push(NIL);
            self.leaders.len() as u16 - 1
        });
        self.leaders[usize::from(block)] = leader;
        block
    }

    /// Block for a node of weight 1 whose right neighbour is `right`.
    fn block_of_weight_1(&mut self, id: u16, right: u16) -> u16 {
        if self.get(right).weight == 1 { self.get(right).block } else { self.new_block(id) }
    }

    /// Takes a symbol out of the list of those not seen and gives it a leaf of its own.
    fn insert(&mut self, symbol: u16) {
        if self.zero_count == 1 {
            // The last one keeps the leaf of weight 0.
            let right = self.get(symbol).right;
            let block = self.block_of_weight_1(symbol, right);
            let node = self.node(symbol);
            (node.block, node.children) = (block, [NIL; 2]);
            self.zeros = NIL;
            return;
        }

        // A new inner node takes the place of the leaf of weight 0 ...
        let inner = self.used as u16;
        self.used += 1;
        let zero = *self.get(self.zeros);
        (self.node(inner).parent, self.node(inner).right) = (zero.parent, zero.right);
        if self.zeros == self.root {
            self.root = inner;
            let block = self.new_block(symbol);
            self.node(symbol).block = block;
            let block = self.new_block(inner);
            self.node(inner).block = block;
        } else {
            self.node(zero.right).left = inner;
            let side = (self.get(zero.parent).children[RIGHT] == self.zeros) as usize;
            self.node(zero.parent).children[side] = inner;
            let block = self.block_of_weight_1(inner, zero.right);
            (self.node(inner).block, self.node(symbol).block) = (block, block);
        }

        // ... the symbol leaves the list ...
        let [before, after] = self.get(symbol).children;
        if before == NIL {
            self.zeros = after;
        } else {
            self.node(before).children[RIGHT] = after;
        }
        if after != NIL {
            self.node(after).children[LEFT] = before;
        }
        self.zero_count -= 1;

        // ... and both hang from the new node.
        let zeros = self.zeros;
        (self.node(inner).children, self.node(inner).left) = ([zeros, symbol], symbol);
        let leaf = self.node(symbol);
        (leaf.parent, leaf.children) = (inner, [NIL; 2]);
        (leaf.left, leaf.right) = (zeros, inner);
        (self.node(zeros).parent, self.node(zeros).right) = (inner, symbol);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trip(sections in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..2000), 1..5)) {
            let (mut encoder, mut decoder) = (Tree::new(), Tree::new());
            for section in sections {
                let bytes = encoder.encode(&section).unwrap();
                prop_assert_eq!(decoder.decode(&bytes, section.len()), Ok(section));
            }
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(bytes: Vec<u8>, size in 1usize..5000) {
            let _ = Tree::new().decode(&bytes, size);
        }
    }
}
