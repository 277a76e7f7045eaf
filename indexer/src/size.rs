//! How much to ask an endpoint for at once. Pure.

/// Blocks of the first range; doubled after each success, halved after each refusal.
const FIRST_BLOCKS: u64 = 100;
/// Most blocks of a range.
const MOST_BLOCKS: u64 = 10_000;
/// An answer with more logs makes the next range smaller: what is in memory at once stays the same however full blocks
/// are.
const ENOUGH_LOGS: usize = 20_000;
/// Answers at the size that an endpoint takes before more is tried again; doubled whenever that fails.
const PATIENCE: u32 = 8;
const MOST_PATIENCE: u32 = 256;
/// The same for batches: where they are refused it is mostly for good.
const PATIENCE_WITH_BATCHES: u32 = 128;

/// The size of the next range or batch, and what the endpoint was seen to refuse.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    next: u64,
    most: u64,
    /// Not exceeded until so many answers have come at it.
    limit: u64,
    answers: u32,
    patience: u32,
    least_patience: u32,
}

impl Size {
    /// Of ranges of blocks.
    pub(crate) fn of_ranges() -> Self {
        Self::new(FIRST_BLOCKS, MOST_BLOCKS, PATIENCE)
    }

    /// Of batches of requests, of which so many are good.
    pub(crate) fn of_batches(most: u64) -> Self {
        Self::new(most, most, PATIENCE_WITH_BATCHES)
    }

    fn new(next: u64, most: u64, least_patience: u32) -> Self {
        Self { next, most, limit: most, answers: 0, patience: least_patience, least_patience }
    }

    /// What to ask for next; at least 1.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// So much was answered with so many logs.
    pub(crate) fn answered(&mut self, asked: u64, logs: usize) {
        if logs > ENOUGH_LOGS {
            self.next = (asked / 2).max(1);
            return;
        }
        if asked > self.limit {
            // More was tried, and is taken.
            (self.limit, self.answers, self.patience) = (asked, 0, self.least_patience);
        } else if asked == self.limit && self.limit < self.most {
            self.answers += 1;
        }
        if logs > ENOUGH_LOGS / 2 {
            return;
        }
        let wanted = asked.saturating_mul(2).min(self.most);
        let allowed = if self.answers >= self.patience { wanted } else { wanted.min(self.limit) };
        // Of several that are read at once, each may find so.
        self.next = self.next.max(allowed);
    }

    /// So much, at least two, was too much.
    pub(crate) fn refused(&mut self, asked: u64) {
        if asked > self.limit {
            self.patience = self.patience.saturating_mul(2).min(MOST_PATIENCE);
            self.answers = 0;
            self.next = self.limit;
        } else {
            self.next = (asked / 2).max(1);
            (self.limit, self.answers) = (self.next, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks an endpoint that takes so many blocks for so many in all: how often it refuses, and the size at the end.
    fn read(size: &mut Size, takes: u64, mut blocks: u64) -> (u32, u32) {
        let (mut asked, mut refused) = (0, 0);
        while blocks > 0 {
            let next = size.next().min(blocks);
            asked += 1;
            if next > takes {
                refused += 1;
                size.refused(next);
            } else {
                size.answered(next, 0);
                blocks -= next;
            }
        }
        (asked, refused)
    }

    #[test]
    fn it_grows_while_answers_are_small() {
        let mut size = Size::of_ranges();
        assert_eq!(read(&mut size, u64::MAX, 1_000_000).1, 0);
        assert_eq!(size.next(), MOST_BLOCKS);
        size.answered(MOST_BLOCKS, ENOUGH_LOGS + 1);
        assert_eq!(size.next(), MOST_BLOCKS / 2, "what is in memory is bounded");
        size.answered(MOST_BLOCKS / 2, ENOUGH_LOGS);
        assert_eq!(size.next(), MOST_BLOCKS / 2);
    }

    #[test]
    fn a_limit_is_tried_again_now_and_then_only() {
        for takes in [1, 7, 100, 500, 2_000] {
            let mut size = Size::of_ranges();
            let (asked, refused) = read(&mut size, takes, takes * 2_000);
            assert!(refused <= 20, "{takes}: {refused} of {asked} refused");
            assert!(u64::from(asked) <= 2 * 2_000 + 40, "{takes}: {asked}, not more than twice the fewest");
            // What was refused where blocks are full is taken where they are not.
            read(&mut size, u64::MAX, 2_000_000);
            assert_eq!(size.next(), MOST_BLOCKS, "{takes}");
        }
    }
}
