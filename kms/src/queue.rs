//! Questions that wait for the same thing share one exchange: while one is under way, further ones gather for the next.
//! So the number of exchanges is bounded, however many questions there are.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::oneshot;

/// Exchanges under way for one key. More than one, so that a slow exchange does not hold up all that come after it.
const UNDER_WAY_MAX: usize = 2;

/// How much of an exchange a question takes.
pub(crate) trait Weighed {
    /// In release decisions.
    fn weight(&self) -> usize;
}

/// Release decisions of one exchange; a single question may have more. Providers limit batches.
const WEIGHT_MAX: usize = 64;

struct Waiting<Q, A> {
    question: Q,
    answer: oneshot::Sender<A>,
}

struct Line<Q, A> {
    waiting: Vec<Waiting<Q, A>>,
    under_way: usize,
}

/// The questions of all keys.
pub(crate) struct Queue<K, Q, A>(Arc<Mutex<BTreeMap<K, Line<Q, A>>>>);

impl<K, Q, A> Default for Queue<K, Q, A> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K, Q, A> fmt::Debug for Queue<K, Q, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Queue")
    }
}

impl<K, Q, A> Queue<K, Q, A>
where
    K: Ord + Copy + Send + 'static,
    Q: Weighed + Send + 'static,
    A: Send + 'static,
{
    /// Asks, together with whatever else waits under this key. `exchange` gives one answer for each question, in
    /// order. `None` if it broke.
    pub(crate) async fn ask<E, F>(&self, key: K, question: Q, exchange: E) -> Option<A>
    where
        E: Fn(Vec<Q>) -> F + Send + 'static,
        F: Future<Output = Vec<A>> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let starts = {
            let mut lines = self.lines();
            let line = lines.entry(key).or_insert_with(|| Line { waiting: Vec::new(), under_way: 0 });
            line.waiting.push(Waiting { question, answer });
            let starts = line.under_way < UNDER_WAY_MAX;
            line.under_way += usize::from(starts);
            starts
        };
        if starts {
            // A task of its own: others wait for it too, whatever becomes of this caller.
            let mut under_way = UnderWay { queue: Self(self.0.clone()), key, is_over: false };
            tokio::spawn(async move {
                while let Some(batch) = under_way.next() {
                    let (questions, answers): (Vec<_>, Vec<_>) =
                        batch.into_iter().map(|waiting| (waiting.question, waiting.answer)).unzip();
                    for (sender, answer) in answers.into_iter().zip(exchange(questions).await) {
                        let _ = sender.send(answer); // the caller may have given up
                    }
                }
            });
        }
        answered.await.ok()
    }
}

impl<K: Ord, Q, A> Queue<K, Q, A> {
    fn lines(&self) -> std::sync::MutexGuard<'_, BTreeMap<K, Line<Q, A>>> {
        // No user code runs while it is locked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place for exchanges under way.
struct UnderWay<K: Ord, Q, A> {
    queue: Queue<K, Q, A>,
    key: K,
    is_over: bool,
}

impl<K: Ord, Q: Weighed, A> UnderWay<K, Q, A> {
    /// What the next exchange takes, oldest first. With nothing left the place is given back at once, so that no
    /// question can come in between and wait for nobody.
    fn next(&mut self) -> Option<Vec<Waiting<Q, A>>> {
        let mut lines = self.queue.lines();
        let line = lines.get_mut(&self.key)?;
        if line.waiting.is_empty() {
            self.is_over = true;
            line.under_way = line.under_way.saturating_sub(1);
            if line.under_way == 0 {
                lines.remove(&self.key);
            }
            return None;
        }
        let mut weight = 0;
        let fits = |waiting: &&Waiting<Q, A>| {
            weight += waiting.question.weight();
            weight <= WEIGHT_MAX
        };
        let count = line.waiting.iter().take_while(fits).count().max(1);
        Some(line.waiting.drain(..count).collect())
    }
}

/// An exchange that broke: whoever waits under this key is told so by the end of its channel.
impl<K: Ord, Q, A> Drop for UnderWay<K, Q, A> {
    fn drop(&mut self) {
        if !self.is_over {
            let mut lines = self.queue.lines();
            if let Some(line) = lines.get_mut(&self.key) {
                line.under_way = line.under_way.saturating_sub(1);
                line.waiting.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct Number(usize);

    impl Weighed for Number {
        fn weight(&self) -> usize {
            1
        }
    }

    /// A hundred questions while two exchanges are held up: each gets its own answer, in few exchanges.
    #[tokio::test]
    async fn what_waits_shares_the_next_exchange_and_each_gets_its_own_answer() {
        let queue = Arc::new(Queue::<u8, Number, usize>::default());
        let (gate, exchanges) = (Arc::new(tokio::sync::Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
        let ask = |number| {
            let (queue, gate, exchanges) = (queue.clone(), gate.clone(), exchanges.clone());
            tokio::spawn(async move {
                let exchange = move |batch: Vec<Number>| {
                    let (gate, exchanges) = (gate.clone(), exchanges.clone());
                    async move {
                        exchanges.fetch_add(1, Ordering::SeqCst);
                        let _open = gate.acquire().await;
                        batch.iter().map(|number| number.0 * 2).collect()
                    }
                };
                queue.ask(1, Number(number), exchange).await
            })
        };
        let mut tasks = Vec::new();
        for number in 0..UNDER_WAY_MAX {
            tasks.push(ask(number));
            while exchanges.load(Ordering::SeqCst) <= number {
                tokio::task::yield_now().await;
            }
        }
        tasks.extend((UNDER_WAY_MAX..100).map(ask));
        while queue.lines().get(&1).is_none_or(|line| line.waiting.len() < 100 - UNDER_WAY_MAX) {
            tokio::task::yield_now().await;
        }
        gate.add_permits(1000);
        for (number, task) in tasks.into_iter().enumerate() {
            assert_eq!(task.await.unwrap(), Some(number * 2));
        }
        assert_eq!(exchanges.load(Ordering::SeqCst), 4, "2 held up, then 64 and 34 together");
        while !queue.lines().is_empty() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn an_exchange_that_breaks_is_told_and_the_next_one_goes_on() {
        let queue = Queue::<u8, Number, usize>::default();
        let broken = queue.ask(1, Number(1), async |_| panic!("broken")).await;
        assert_eq!(broken, None);
        assert_eq!(queue.ask(1, Number(1), async |batch: Vec<Number>| vec![batch.len()]).await, Some(1));
    }
}
