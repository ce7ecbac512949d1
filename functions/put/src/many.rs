//! Several secrets under a prefix.

use coffer::coffer::put::Put;
use coffer::error::Error;
use coffer::fields::Fields;
use coffer::name::Prefix;

use crate::one;

pub(crate) fn parse(prefix: &Prefix, fields: &mut Fields) -> Result<Vec<Put>, Error> {
    let each = |mut fields: Fields| {
        let put = one::parse(&mut fields)?;
        fields.finish().map(|()| put)
    };
    let puts: Vec<_> =
        fields.several("secrets")?.into_iter().map(each).collect::<Result<_, _>>()?;
    let mut names: Vec<_> = puts.iter().map(|put| &put.name).collect();
    names.sort_unstable();
    names.dedup();
    if names.len() < puts.len() {
        return Err(Error::invalid("A name is there twice. Put each secret once."));
    }
    if !names.into_iter().all(|name| prefix.covers(name)) {
        return Err(Error::invalid(
            "Each name in `secrets` is given whole and begins with the prefix: `dev` covers `dev`, \
             `dev/db` and `dev.db`.",
        ));
    }
    Ok(puts)
}
