//! Questions that name servers leave unanswered: they are asked again beside a call, and no call waits
//! for them a second time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};

/// Questions kept.
const QUESTIONS_MAX: usize = 1_024;
/// How soon a question is asked again, when a call needs it.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// A question that nobody needed for so long is waited for again.
const FORGET: Duration = Duration::from_secs(300);

#[derive(Debug, Clone, Copy)]
struct Asked {
    needed: Instant,
    asked: Instant,
}

/// The questions.
#[derive(Debug, Clone, Default)]
pub(super) struct Silence(Arc<Mutex<HashMap<String, Asked>>>);

/// What to do with a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Now {
    Wait,
    AskBeside,
    Nothing,
}

impl Silence {
    /// What is answered within `patience`; nothing at once where the question met with silence before.
    /// An answer that comes later counts for whoever asks then.
    pub(super) async fn within<T: Send + 'static>(
        &self,
        question: String,
        patience: Duration,
        answer: impl Future<Output = Vec<T>> + Send + 'static,
    ) -> Vec<T> {
        let now = self.judge(&question, Instant::now());
        if now == Now::Nothing {
            return Vec::new();
        }
        let (known, asked) = (self.clone(), question.clone());
        // It goes on when nobody waits any more. Whoever answers gives up by itself.
        let answered = tokio::spawn(async move {
            let started = Instant::now();
            let told = answer.await;
            if started.elapsed() < patience {
                known.questions().remove(&asked);
            }
            told
        });
        if now == Now::AskBeside {
            return Vec::new();
        }
        if let Ok(told) = timeout(patience, answered).await {
            return told.unwrap_or_default();
        }
        self.note(question, Instant::now());
        Vec::new()
    }

    fn questions(&self) -> MutexGuard<'_, HashMap<String, Asked>> {
        // Every critical section leaves it whole, so a poisoned lock is still good.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn judge(&self, question: &str, now: Instant) -> Now {
        let mut questions = self.questions();
        let Some(known) = questions.get_mut(question) else {
            return Now::Wait;
        };
        if now.duration_since(known.needed) > FORGET {
            questions.remove(question);
            return Now::Wait;
        }
        known.needed = now;
        if now.duration_since(known.asked) < ASK_AGAIN {
            return Now::Nothing;
        }
        known.asked = now;
        Now::AskBeside
    }

    fn note(&self, question: String, now: Instant) {
        let mut questions = self.questions();
        if questions.len() >= QUESTIONS_MAX {
            questions.retain(|_, known| now.duration_since(known.needed) <= FORGET);
        }
        let needed_longest_ago = questions.iter().min_by_key(|(_, known)| known.needed);
        if let Some((oldest, _)) = needed_longest_ago
            && questions.len() >= QUESTIONS_MAX
        {
            let oldest = oldest.clone();
            questions.remove(&oldest);
        }
        let asked = Asked {
            needed: now,
            asked: now,
        };
        questions.insert(question, asked);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};

    /// Nobody waits for so long.
    const LONG: Duration = Duration::from_secs(86_400);

    #[tokio::test]
    async fn silence_is_waited_for_once_and_an_answer_ends_it() {
        let silence = Silence::default();
        let ask = |patience| silence.within("SRV a".to_owned(), patience, pending::<Vec<u32>>());
        let told = |question: &str| silence.within(question.to_owned(), LONG, ready(vec![7]));
        assert_eq!(told("SRV a").await, [7]);
        assert!(ask(Duration::from_millis(10)).await.is_empty());
        for _ in 0..50 {
            assert!(ask(LONG).await.is_empty());
        }
        assert_eq!(told("SRV b").await, [7], "others are waited for");
        if let Some(known) = silence.questions().get_mut("SRV a") {
            known.asked -= ASK_AGAIN;
        }
        assert!(told("SRV a").await.is_empty(), "it is asked beside");
        while !silence.questions().is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(told("SRV a").await, [7]);
    }

    #[test]
    fn a_silent_question_is_asked_now_and_then_and_forgotten_when_nobody_needs_it() {
        let silence = Silence::default();
        let start = Instant::now();
        silence.note("SRV a".to_owned(), start);
        assert_eq!(silence.judge("SRV a", start + ASK_AGAIN / 2), Now::Nothing);
        assert_eq!(silence.judge("SRV a", start + ASK_AGAIN), Now::AskBeside);
        let soon = start + ASK_AGAIN + ASK_AGAIN / 2;
        assert_eq!(silence.judge("SRV a", soon), Now::Nothing);
        assert_eq!(silence.judge("SRV a", soon + 2 * FORGET), Now::Wait);
    }

    #[test]
    fn no_more_questions_are_kept_than_there_is_room_for() {
        let silence = Silence::default();
        let start = Instant::now();
        for number in 0..2 * QUESTIONS_MAX {
            let now = start + Duration::from_millis(number as u64);
            silence.note(format!("SRV {number}"), now);
        }
        assert_eq!(silence.questions().len(), QUESTIONS_MAX);
        assert_eq!(silence.judge("SRV 0", start), Now::Wait);
    }
}
