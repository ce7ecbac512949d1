//! What rewrap, reseal and renew have in common: the request for one name, and the steps of a run
//! over everything, which the state machine asks for.

mod one;
mod step;

use std::marker::PhantomData;

use coffer::chain::Caller;
use coffer::error::Error;
use coffer::event::Answer;
use coffer::fields::Fields;
use coffer::lambda::Operation;
use coffer::name::Name;
use coffer::operations::Coffer;
use coffer::operations::executor::Action;

/// A function that does one kind of rotation.
pub trait Acts: Send {
    /// Which one.
    const ACTION: Action;
}

/// A request to it.
pub struct Request<A> {
    kind: Kind,
    acts: PhantomData<A>,
}

enum Kind {
    One(one::Request),
    Step(step::Request),
}

impl<A: Acts> Operation for Request<A> {
    const NAME: &'static str = A::ACTION.as_str();

    fn parse(fields: &mut Fields) -> Result<Self, Error> {
        if fields.required::<Action>("action")? != A::ACTION {
            return Err(Error::invalid("`action` is another function's. Ask rotate."));
        }
        let kind = match fields.text("step")? {
            None => Kind::One(one::Request::parse(A::ACTION, fields)?),
            Some(step) => Kind::Step(step::Request::parse(&step, fields)?),
        };
        Ok(Self { kind, acts: PhantomData })
    }

    fn name(&self) -> Option<&Name> {
        match &self.kind {
            Kind::One(one) => Some(&one.name),
            Kind::Step(_) => None,
        }
    }

    fn writes(&self) -> bool {
        true
    }

    async fn apply(self, coffer: &Coffer, caller: &Caller) -> Result<Answer, Error> {
        match self.kind {
            Kind::One(one) => one.apply(A::ACTION, coffer, caller).await,
            Kind::Step(step) => step.apply(A::ACTION, coffer, caller).await,
        }
    }
}
