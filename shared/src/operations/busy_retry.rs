//! Several calls to AWS, made again while AWS is busy.

use std::collections::BTreeMap;

use futures_util::stream::{StreamExt, iter};
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::error::Error;

/// Makes a call for each input, `at_a_time`, and returns the results in the same order. Calls that
/// AWS throttled or that timed out are made again, with growing pauses and fewer at a time, but not
/// after `end`.
pub(super) async fn retry_while_busy<T, R, F: Future<Output = (T, Result<R, Error>)>>(
    inputs: Vec<T>,
    mut at_a_time: usize,
    mut end: Instant,
    call: impl Fn(T) -> F,
) -> Vec<(T, Result<R, Error>)> {
    let mut backoff = Backoff::default();
    let mut results = BTreeMap::new();
    let first = |(index, each)| (index, (each, None));
    let mut left: Vec<_> = inputs.into_iter().enumerate().map(first).collect();
    loop {
        let calls = iter(left).map(|(index, (each, error))| {
            let call = &call;
            async move {
                match error {
                    Some(error) if Instant::now() >= end => (index, (each, Err(error))),
                    _ => (index, call(each).await),
                }
            }
        });
        let outputs: Vec<_> = calls.buffered(at_a_time).collect().await;
        left = Vec::new();
        for (index, (each, result)) in outputs {
            match result {
                Err(error) if error.is_busy() && Instant::now() < end => {
                    left.push((index, (each, Some(error))));
                }
                result => {
                    results.insert(index, (each, result));
                }
            }
        }
        if left.is_empty() {
            return results.into_values().collect();
        }
        if backoff.wait().await.is_err() {
            end = Instant::now();
        }
        at_a_time = (at_a_time / 2).max(2);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::future::ready;
    use std::time::Duration;

    use super::*;

    fn end(begin: Instant) -> Instant {
        begin + Duration::from_secs(18)
    }

    #[tokio::test(start_paused = true)]
    async fn no_call_is_made_again_after_the_end_however_many_there_are() {
        let calls = RefCell::new(0);
        let begin = Instant::now();
        let results = retry_while_busy(vec![(); 100], 16, end(begin), async |()| {
            *calls.borrow_mut() += 1;
            tokio::time::sleep(Duration::from_secs(2)).await;
            ((), Err::<(), _>(busy()))
        });
        assert_eq!(results.await.len(), 100);
        assert!((18..21).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
        assert!(calls.into_inner() > 100);
    }

    fn busy() -> Error {
        crate::aws_error::tests::failure("ThrottlingException").into()
    }

    #[tokio::test(start_paused = true)]
    async fn only_throttled_calls_are_made_again() {
        let calls = RefCell::new([0; 4]);
        let end = end(Instant::now());
        let results = retry_while_busy(vec![0_usize, 1, 2, 3], 16, end, |index| {
            calls.borrow_mut()[index] += 1;
            let result = match (index, calls.borrow()[index]) {
                (1, 1..=3) => Err(busy()),
                (2, _) => Err(Error::Integrity),
                _ => Ok(10 * index),
            };
            ready((index, result))
        });
        let results: Vec<_> =
            results.await.into_iter().map(|(index, result)| (index, result.ok())).collect();
        assert_eq!(results, [(0, Some(0)), (1, Some(10)), (2, None), (3, Some(30))]);
        assert_eq!(calls.into_inner(), [1, 4, 1, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_stays_throttled_is_an_error() {
        let begin = Instant::now();
        let results =
            retry_while_busy(vec![()], 16, end(begin), |()| ready(((), Err::<(), _>(busy()))))
                .await;
        let [((), Err(error))] = results.as_slice() else { panic!("{results:?}") };
        assert!(error.is_busy());
        assert!((18..20).contains(&begin.elapsed().as_secs()));
    }
}
