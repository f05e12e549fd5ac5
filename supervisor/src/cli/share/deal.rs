//! Which node gets what. Pure.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// For each item, in the order of the list: its node, from 0.
#[derive(Debug, PartialEq, Eq)]
pub struct Deal {
    pub nodes: Vec<usize>,
    total: usize,
}

impl Deal {
    /// The first to node 0, the second to node 1, and so on: no node has more than one item beyond another's.
    pub fn by_turns(items: usize, total: usize) -> Self {
        Self { nodes: (0..items).map(|item| item % total).collect(), total }
    }

    /// The heaviest first, each to the node that has least so far; among equals the earlier item, the node with fewer items,
    /// the lower node.
    pub fn by_weight(weights: &[u64], total: usize) -> Self {
        // Sorted by a heap: in a small program the standard library's sorts are large.
        let order: BinaryHeap<_> = weights.iter().enumerate().map(|(item, weight)| (Reverse(*weight), item)).collect();
        let mut lightest: BinaryHeap<_> = (0..total).map(|node| Reverse((0_u64, 0_usize, node))).collect();
        let mut nodes = vec![0; weights.len()];
        for (_, item) in order.into_sorted_vec() {
            let Some(mut top) = lightest.peek_mut() else { break };
            let Reverse((load, count, node)) = *top;
            nodes[item] = node;
            *top = Reverse((load.saturating_add(weights[item]), count + 1, node));
        }
        Self { nodes, total }
    }

    /// Items of each node.
    pub fn counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.total];
        self.nodes.iter().for_each(|node| counts[*node] += 1);
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loads(weights: &[u64], deal: &Deal) -> Vec<u64> {
        let mut loads = vec![0; deal.total];
        weights.iter().zip(&deal.nodes).for_each(|(weight, node)| loads[*node] += weight);
        loads
    }

    #[test]
    fn turns_differ_by_one_at_most() {
        for (items, total) in [(0, 3), (2, 3), (10, 4), (9, 3), (7, 1)] {
            let counts = Deal::by_turns(items, total).counts();
            assert_eq!(counts.iter().sum::<usize>(), items);
            assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{counts:?}");
        }
    }

    #[test]
    fn the_heaviest_goes_first_to_the_lightest() {
        // As the original deals these: 10 | 6 3 2 | 5 4.
        let deal = Deal::by_weight(&[10, 2, 3, 4, 5, 6], 3);
        assert_eq!(deal.nodes, [0, 1, 1, 2, 2, 1]);
        assert_eq!(deal.counts(), [1, 3, 2]);
    }

    #[test]
    fn what_weighs_nothing_is_spread_all_the_same() {
        assert_eq!(Deal::by_weight(&[0; 7], 3).counts(), [3, 2, 2]);
        assert_eq!(Deal::by_weight(&[], 3).counts(), [0, 0, 0]);
        assert_eq!(Deal::by_weight(&[u64::MAX, u64::MAX, 1], 1).counts(), [3]);
    }

    /// Log-normal weights from a generator of our own, cut so that none has more than a hundredth of all.
    fn log_normal(count: usize, mut seed: u64) -> Vec<u64> {
        let mut uniform = move || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((seed >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
        };
        let mut normal = move || (-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos();
        let weights: Vec<u64> = (0..count).map(|_| (1_000_000.0 * (1.5 * normal()).exp()) as u64).collect();
        let most = weights.iter().sum::<u64>() / 100;
        weights.into_iter().map(|weight| weight.min(most)).collect()
    }

    #[test]
    fn fifty_thousand_tests_are_dealt_evenly() {
        for (seed, total) in [(1, 2), (2, 16), (3, 50), (4, 90)] {
            let weights = log_normal(50_000, seed);
            let all = weights.iter().sum::<u64>();
            assert!(*weights.iter().max().unwrap() <= all / 90, "one test alone may not decide");
            let loads = loads(&weights, &Deal::by_weight(&weights, total));
            let mean = all as f64 / total as f64;
            let heaviest = *loads.iter().max().unwrap() as f64;
            assert!(heaviest <= 1.03 * mean, "{total} nodes: {heaviest} over a mean of {mean}");
        }
    }
}
