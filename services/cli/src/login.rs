//! `nexushub login` and `nexushub logout`: a session at a platform on another machine, which is the one that is meant in between. A
//! password is sent once, to the platform's own admin host, and not kept.

mod password;

use std::{fs, path::PathBuf};

use clap::Args;
use nexushub_chassis::names::Zone;

use crate::{
    args::Global,
    failure::{Failure, OK},
    https::{Bearer, Client, Roots, Target},
    out,
    place::Place,
    session::{
        Farewell, Session,
        front::{self, Word},
        no_developer,
        store::{Kept, Store},
    },
    up::runtime,
};

#[derive(Debug, Args)]
pub(crate) struct Login {
    /// The address of the platform: of its admin app, or of any other host below its domain
    #[arg(value_name = "https://HOST[:PORT]")]
    url: String,
    /// Who you are there [default: it is asked for at the terminal]
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// The authorities that the platform's certificate is checked with, as PEM [default: those that this machine trusts]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Logout {
    /// Forget the session even where the platform can't be told
    #[arg(long)]
    forget: bool,
}

/// `nexushub login`
pub(crate) fn login(global: &Global, args: &Login) -> Result<u8, Failure> {
    let (store, named) = (Store::of_user()?, Target::elsewhere(&args.url)?);
    let ca = args
        .ca
        .as_ref()
        .map(|path| fs::read_to_string(path).map_err(|error| Failure::io("read", path, &error)));
    let ca = ca.transpose()?;
    let roots = ca.as_deref().map_or(Roots::System, Roots::Pem);
    let runtime = runtime()?;
    // Before a password is asked for, so that nobody types one in vain.
    let base_domain = {
        let door = Client::new(named.clone(), &roots, Bearer::Nobody)?;
        runtime.block_on(front::base_domain(&door, &named))?
    };
    let door = Client::new(front::target(&Zone::new(&base_domain, named.port)), &roots, Bearer::Nobody)?;
    let user = match &args.user {
        Some(user) => user.clone(),
        None => password::user(&named.url())?,
    };
    let password = password::password(&user, &named.url())?;
    let refresh_token = runtime.block_on(begin(&door, &user, &password, &named.url()))?;
    let kept = Kept { url: named.url(), base_domain, user, refresh_token, ca };
    runtime.block_on(keep(&store, &kept))?;
    out::say(&format!(
        "logged in at {} as {}; commands mean it until `nexushub logout`",
        kept.url, kept.user
    ))?;
    let here = Place::find(&Global { platform: None, ..global.clone() })?;
    if here.home.is_some() {
        out::tell(&format!("but here {here} goes before it; mean the other one by --platform {}", kept.url));
    }
    Ok(OK)
}

/// A session of an administrator's: its refresh token. It is tried at once, so that nobody is logged in who may do nothing.
async fn begin(door: &Client, user: &str, password: &str, url: &str) -> Result<String, Failure> {
    let first = front::log_in(door, user, password).await?;
    match front::exchange(door, &first).await? {
        Word::Granted { refresh, .. } => Ok(refresh),
        Word::Denied => Err(no_developer(user, url)),
        Word::Ended => Err(Failure::new(format!("{url} ended the session at once"), "try again")),
    }
}

async fn keep(store: &Store, kept: &Kept) -> Result<(), Failure> {
    let _turn = store.turn().await?;
    // What is there and can't be read is in nobody's way: it is replaced.
    let mut book = store.read().unwrap_or_default();
    book.add(kept.clone());
    store.write(&book)
}

/// `nexushub logout`
pub(crate) fn logout(global: &Global, args: &Logout) -> Result<u8, Failure> {
    let store = Store::of_user()?;
    let kept = match global.platform.as_deref().filter(|platform| *platform != crate::hub::LOCAL) {
        Some(url) => store.read()?.at(&Target::elsewhere(url)?),
        None => store.read()?.current(),
    };
    let kept = kept.ok_or_else(|| Failure::new("nobody is logged in there", "nexushub login URL"))?;
    let url = kept.url.clone();
    let farewell =
        runtime()?.block_on(async { Session::open(store, kept, false)?.log_out(args.forget).await })?;
    out::say(&match farewell {
        Farewell::Said => format!("logged out at {url}"),
        Farewell::Over => format!("the session at {url} had ended; it is forgotten"),
        Farewell::Untold => format!("the session at {url} is forgotten here; the platform could not be told"),
    })?;
    Ok(OK)
}
