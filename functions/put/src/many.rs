//! Several secrets under a prefix.

use coffer::error::Error;
use coffer::fields::Fields;
use coffer::name::Prefix;
use coffer::operations::put::Put;

use crate::one;

pub(crate) fn parse(prefix: &Prefix, fields: &mut Fields) -> Result<Vec<Put>, Error> {
    let (mut puts, mut wrong) = (Vec::<Put>::new(), Vec::new());
    for (place, mut fields) in fields.several("secrets")?.into_iter().enumerate() {
        let put = one::parse(&mut fields).and_then(|put| fields.finish().map(|()| put));
        match put.and_then(|put| fits(prefix, &puts, put)) {
            Ok(put) => puts.push(put),
            Err(error) => wrong.push((format!("secrets[{place}]"), error)),
        }
    }
    // All that is wrong at once, each with its place: nobody wants to import fifty times.
    if wrong.is_empty() { Ok(puts) } else { Err(Error::several(wrong)) }
}

fn fits(prefix: &Prefix, before: &[Put], put: Put) -> Result<Put, Error> {
    if before.iter().any(|other| other.name == put.name) {
        return Err(Error::invalid("A name is there twice. Put each secret once."));
    }
    if !prefix.covers(&put.name) {
        return Err(Error::invalid(
            "Each name in `secrets` must be whole and under the prefix: `dev` covers `dev`, `dev/db` \
             and `dev.db`, `dev/` covers `dev/db`, and `db_*` covers `db_password`.",
        ));
    }
    Ok(put)
}
