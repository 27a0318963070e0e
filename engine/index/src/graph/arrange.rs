//! The order of the nodes in memory: what walks meet together lies together.
//!
//! Called at the end of `build` and `merge`. Codes and links are read at random, and what a walk waits for is pages as
//! much as cache lines: a processor knows the addresses of a few thousand pages at most, of far fewer under a
//! hypervisor. Rows come in any order. Numbered as a depth-first search over the lowest layer meets them, nearest link
//! first, a tenth of all links lead to one of the 40 nodes on either side (117,659 × 384 in random order: 0.002), and a
//! search takes about a tenth less time than with rows in the order of a dictionary. Orders that look at more than one
//! link at a time (Wei et al. 2016, "Gorder") were no better, and took half a second to find.
//!
//! Nodes stay sorted by falling level, which says what layers they are in, and node 0 stays the entry. Everything else of
//! the graph stays as it is: the same nodes are linked.

use super::links::Layers;
use super::nodes::Nodes;
use crate::Bits;
use crate::quantize::Codes;

/// The same graph with its nodes in a new order.
pub(super) fn arrange(nodes: &Nodes, layers: &mut Layers, codes: Option<&mut Codes>) -> Option<Nodes> {
    let order = order(layers);
    let mut places = vec![0; order.len()];
    order.iter().enumerate().for_each(|(place, node)| places[*node as usize] = place as u32);
    let arranged = nodes.in_order(&order)?;
    if let Some(codes) = codes {
        codes.arrange(&order);
    }
    layers.arrange(&order, &places);
    Some(arranged)
}

/// All nodes as a depth-first search meets them, those of higher levels first.
fn order(layers: &Layers) -> Vec<u32> {
    let count = layers.count(0);
    let mut met = Bits::new(count);
    let mut order = Vec::with_capacity(count);
    // A node and how many of its links have been looked at.
    let mut path: Vec<(u32, u32)> = Vec::new();
    for start in 0..count as u32 {
        if met.get(start as usize) {
            continue;
        }
        met.set(start as usize);
        order.push(start);
        path.push((start, 0));
        while let Some((node, looked)) = path.last_mut() {
            let mut next = layers.links(0, *node).enumerate().skip(*looked as usize);
            match next.find(|(_, link)| !met.get(*link as usize)) {
                Some((index, link)) => {
                    *looked = index as u32 + 1;
                    met.set(link as usize);
                    order.push(link);
                    path.push((link, 0));
                }
                None => {
                    path.pop();
                }
            }
        }
    }
    // Stable: within a level they stay in the order in which they were met.
    order.sort_by_key(|node| std::cmp::Reverse(layers.top_of(*node)));
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::nodes::NONE;

    /// Six nodes, two of them in the upper layer, one that nobody links to.
    #[test]
    fn nodes_are_numbered_as_they_are_met() {
        let mut layers = Layers::empty(2, &[6, 2]).unwrap();
        layers.set(1, 0, &[1]);
        layers.set(1, 1, &[0]);
        for (node, links) in [(0, &[4, 1][..]), (4, &[5, 0]), (5, &[1, 4]), (1, &[3]), (3, &[]), (2, &[0])] {
            layers.set(0, node, links);
        }
        // Met: 0, 4, 5, 1, 3; and 2 at last.
        let order = order(&layers);
        assert_eq!(order, [0, 1, 4, 5, 3, 2]);
        let nodes = Nodes::from_parts(6, None, (0..6).collect(), None).unwrap();
        let arranged = arrange(&nodes, &mut layers, None).unwrap();
        assert_eq!(arranged.positions(), order);
        let links = |layer, node| layers.links(layer, node).collect::<Vec<u32>>();
        assert_eq!(
            [0, 1, 2, 3, 4, 5].map(|node| links(0, node)),
            [vec![2, 1], vec![4], vec![3, 0], vec![1, 2], vec![], vec![0]]
        );
        assert_eq!((links(1, 0), links(1, 1)), (vec![1], vec![0]));
        assert!(links(0, 4).iter().all(|link| *link != NONE));
    }
}
