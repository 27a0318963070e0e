//! The statements themselves, clause by clause. What [`super::is_one`] let through comes here.

use datafusion::sql::sqlparser::tokenizer::Token;
use sepal_types::Result;

use super::{
    Connector, Delivery, Grantee, ObjectKind, Options, SecretSource, Value,
    cursor::Cursor,
    is_word,
    options::{hosts, options, text, value},
    pipeline, show,
};

/// A whole statement. Errors: 42601 with the position.
pub(super) fn statement(cursor: &mut Cursor<'_>) -> Result<Delivery> {
    let statement = if cursor.eat("CREATE") {
        create(cursor)?
    } else if cursor.eat("ALTER") {
        alter(cursor)?
    } else if cursor.eat("DROP") {
        drop_object(cursor)?
    } else if cursor.eat("GRANT") {
        let (kind, name) = granted(cursor)?;
        cursor.expect("TO")?;
        Delivery::Grant { kind, name, to: grantee(cursor)? }
    } else if cursor.eat("REVOKE") {
        let (kind, name) = granted(cursor)?;
        cursor.expect("FROM")?;
        Delivery::Revoke { kind, name, from: grantee(cursor)? }
    } else if cursor.eat("SHOW") {
        show::statement(cursor)?
    } else {
        cursor.expect("VALIDATE")?;
        cursor.expect("SINK")?;
        Delivery::ValidateSink { name: cursor.name()? }
    };
    cursor.expect_end()?;
    Ok(statement)
}

/// The kind of a thing. A thing may be called by a word of another kind's: a secret `resolver`, a plugin `trust`.
fn object_kind(cursor: &mut Cursor<'_>) -> Result<ObjectKind> {
    const FOLLOW_NAMES: [&str; 6] = ["AS", "CASCADE", "FROM", "RESTRICT", "SET", "WITH"];
    if cursor.eat("SECRET") {
        let before_name = match cursor.peek_at(1) {
            Some(token @ Token::Word(_)) => !FOLLOW_NAMES.iter().any(|keyword| is_word(token, keyword)),
            _ => false,
        };
        let resolver = before_name && cursor.eat("RESOLVER");
        return Ok(if resolver { ObjectKind::Resolver } else { ObjectKind::Secret });
    }
    if cursor.eat("PLUGIN") {
        let key = cursor.eat_all(&["TRUST", "KEY"]);
        return Ok(if key { ObjectKind::TrustKey } else { ObjectKind::Plugin });
    }
    for (keyword, kind) in [
        ("CERTIFICATE", ObjectKind::Certificate),
        ("PIPELINE", ObjectKind::Pipeline),
        ("SINK", ObjectKind::Sink),
    ] {
        if cursor.eat(keyword) {
            return Ok(kind);
        }
    }
    Err(cursor.unexpected())
}

fn object_name(cursor: &mut Cursor<'_>, kind: ObjectKind) -> Result<String> {
    match kind {
        ObjectKind::Certificate | ObjectKind::Secret => cursor.dashed_name(),
        _ => cursor.name(),
    }
}

fn create(cursor: &mut Cursor<'_>) -> Result<Delivery> {
    let or_replace = cursor.eat_all(&["OR", "REPLACE"]);
    if or_replace && !cursor.is("PLUGIN") {
        return Err(cursor.unexpected());
    }
    let kind = object_kind(cursor)?;
    if kind == ObjectKind::Pipeline {
        return pipeline::create(cursor);
    }
    let if_not_exists = kind == ObjectKind::Secret && cursor.eat_all(&["IF", "NOT", "EXISTS"]);
    let name = object_name(cursor, kind)?;
    match kind {
        ObjectKind::Secret => create_secret(cursor, name, if_not_exists),
        ObjectKind::Certificate => {
            let (certificate, key) = certificate(cursor)?;
            Ok(Delivery::CreateCertificate { name, certificate, key })
        }
        ObjectKind::Resolver => {
            cursor.expect("USING")?;
            cursor.expect("PLUGIN")?;
            let plugin = cursor.name()?;
            let (options, allow_hosts) = configuration(cursor)?;
            let (options, allow_hosts) = (options.unwrap_or_default(), allow_hosts.unwrap_or_default());
            Ok(Delivery::CreateResolver { name, plugin, options, allow_hosts })
        }
        ObjectKind::TrustKey if !or_replace => {
            cursor.expect("AS")?;
            Ok(Delivery::CreateTrustKey { name, key: value(cursor)? })
        }
        ObjectKind::Plugin => {
            let (component, signature) = component(cursor)?;
            Ok(Delivery::CreatePlugin { name, or_replace, component, signature })
        }
        ObjectKind::Sink => {
            cursor.expect("USING")?;
            let connector = connector(cursor)?;
            let (options, allow_hosts) = configuration(cursor)?;
            let (options, allow_hosts) = (options.unwrap_or_default(), allow_hosts.unwrap_or_default());
            Ok(Delivery::CreateSink { name, connector, options, allow_hosts })
        }
        ObjectKind::Pipeline | ObjectKind::TrustKey => Err(cursor.unexpected()),
    }
}

fn create_secret(cursor: &mut Cursor<'_>, name: String, if_not_exists: bool) -> Result<Delivery> {
    let Some(source) = secret_source(cursor)? else {
        return Err(cursor.unexpected());
    };
    let with = if cursor.eat("WITH") { options(cursor)? } else { Options::new() };
    Ok(Delivery::CreateSecret { name, if_not_exists, source, with })
}

/// `AS value` or `FROM resolver [(…)]`
fn secret_source(cursor: &mut Cursor<'_>) -> Result<Option<SecretSource>> {
    if cursor.eat("AS") {
        return Ok(Some(SecretSource::Value(value(cursor)?)));
    }
    if !cursor.eat("FROM") {
        return Ok(None);
    }
    let resolver = cursor.name()?;
    let asks = cursor.peek() == Some(&Token::LParen);
    let request = if asks { options(cursor)? } else { Options::new() };
    Ok(Some(SecretSource::Resolver { resolver, request }))
}

/// `AS pem KEY pem`
fn certificate(cursor: &mut Cursor<'_>) -> Result<(Value, Value)> {
    cursor.expect("AS")?;
    let certificate = value(cursor)?;
    cursor.expect("KEY")?;
    Ok((certificate, value(cursor)?))
}

/// `FROM component [SIGNATURE signature]`
fn component(cursor: &mut Cursor<'_>) -> Result<(Value, Option<Value>)> {
    cursor.expect("FROM")?;
    let component = value(cursor)?;
    let signature = if cursor.eat("SIGNATURE") { Some(value(cursor)?) } else { None };
    Ok((component, signature))
}

/// `PLUGIN name [VERSION 'prefix']`, or the name of a connector that is built in.
fn connector(cursor: &mut Cursor<'_>) -> Result<Connector> {
    if !cursor.eat("PLUGIN") {
        return Ok(Connector::Native(cursor.name()?));
    }
    let name = cursor.name()?;
    let version = if cursor.eat("VERSION") { Some(text(cursor)?) } else { None };
    Ok(Connector::Plugin { name, version })
}

type Configuration = (Option<Options>, Option<Vec<String>>);

/// `OPTIONS (…)` and `ALLOW HOSTS (…)`, in either order.
fn configuration(cursor: &mut Cursor<'_>) -> Result<Configuration> {
    let (mut given, mut allowed) = (None, None);
    loop {
        if given.is_none() && cursor.eat("OPTIONS") {
            given = Some(options(cursor)?);
        } else if allowed.is_none() && cursor.eat_all(&["ALLOW", "HOSTS"]) {
            allowed = Some(hosts(cursor)?);
        } else {
            return Ok((given, allowed));
        }
    }
}

fn alter(cursor: &mut Cursor<'_>) -> Result<Delivery> {
    let kind = object_kind(cursor)?;
    if matches!(kind, ObjectKind::Resolver | ObjectKind::TrustKey) {
        return Err(cursor.unexpected());
    }
    let name = object_name(cursor, kind)?;
    match kind {
        ObjectKind::Secret => {
            let source = secret_source(cursor)?;
            let sets = cursor.eat("SET") || cursor.eat("WITH");
            let with = if sets { options(cursor)? } else { Options::new() };
            if source.is_none() && with.is_empty() {
                return Err(cursor.unexpected());
            }
            Ok(Delivery::AlterSecret { name, source, with })
        }
        ObjectKind::Certificate => {
            let (certificate, key) = certificate(cursor)?;
            Ok(Delivery::AlterCertificate { name, certificate, key })
        }
        ObjectKind::Plugin => {
            cursor.expect("UPDATE")?;
            let version = if cursor.eat("TO") { Some(text(cursor)?) } else { None };
            let (component, signature) = component(cursor)?;
            Ok(Delivery::UpdatePlugin { name, version, component, signature })
        }
        ObjectKind::Sink => {
            let (options, allow_hosts) = configuration(cursor)?;
            if options.is_none() && allow_hosts.is_none() {
                return Err(cursor.unexpected());
            }
            Ok(Delivery::AlterSink { name, options, allow_hosts })
        }
        ObjectKind::Pipeline => Ok(Delivery::AlterPipeline { name, change: pipeline::change(cursor)? }),
        ObjectKind::Resolver | ObjectKind::TrustKey => Err(cursor.unexpected()),
    }
}

fn drop_object(cursor: &mut Cursor<'_>) -> Result<Delivery> {
    let kind = object_kind(cursor)?;
    let if_exists = cursor.eat_all(&["IF", "EXISTS"]);
    let name = object_name(cursor, kind)?;
    let cascade = cursor.eat("CASCADE");
    if !cascade {
        cursor.eat("RESTRICT");
    }
    Ok(Delivery::Drop { kind, name, if_exists, cascade })
}

/// `USAGE ON kind name`
fn granted(cursor: &mut Cursor<'_>) -> Result<(ObjectKind, String)> {
    cursor.expect("USAGE")?;
    cursor.expect("ON")?;
    for (keyword, kind) in [
        ("CERTIFICATE", ObjectKind::Certificate),
        ("PLUGIN", ObjectKind::Plugin),
        ("SECRET", ObjectKind::Secret),
    ] {
        if cursor.eat(keyword) {
            return Ok((kind, object_name(cursor, kind)?));
        }
    }
    Err(cursor.unexpected())
}

fn grantee(cursor: &mut Cursor<'_>) -> Result<Grantee> {
    if cursor.eat("PUBLIC") {
        return Ok(Grantee::Public);
    }
    cursor.key_id().map(Grantee::Key)
}
