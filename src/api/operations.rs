//! The operations of the bridge as routes: what a request says becomes arguments, and the answer a
//! response.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Router,
    extract::{FromRequestParts as _, OriginalUri, Query, RawPathParams, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse as _, Response},
    routing::{MethodFilter, on},
};
use schemars::SchemaGenerator;
use serde_json::{Map, Value, value::RawValue};

use super::{
    ApiState, conditions,
    error::{ApiError, problem_headers},
    extract::{Auth, body_object, idempotency_key},
    links::page_links,
};
use crate::{
    bridge::{
        conversations::Caller,
        operations::{self, Method, Operation},
    },
    domain::request::Answer,
};

/// How a text of the query becomes JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Text,
    Number,
    Truth,
    /// Texts with commas between them.
    List,
}

/// An operation as it is asked for over HTTP.
struct Route {
    operation: &'static Operation,
    forms: HashMap<String, Form>,
}

/// Adds a route for every operation.
pub(super) fn routes(router: Router<ApiState>) -> Router<ApiState> {
    operations::all().fold(router, |router, operation| {
        let route = Arc::new(Route::new(operation));
        let handler = async move |State(state): State<ApiState>, request: Request| {
            route
                .respond(&state, request)
                .await
                .unwrap_or_else(ApiError::into_response)
        };
        router.route(operation.path, on(filter(operation.method), handler))
    })
}

fn filter(method: Method) -> MethodFilter {
    match method {
        Method::Get => MethodFilter::GET,
        Method::Post => MethodFilter::POST,
        Method::Put => MethodFilter::PUT,
        Method::Patch => MethodFilter::PATCH,
        Method::Delete => MethodFilter::DELETE,
    }
}

impl Route {
    fn new(operation: &'static Operation) -> Self {
        let schema = (operation.arguments)(&mut SchemaGenerator::default());
        let members = schema.get("properties").and_then(Value::as_object);
        let forms = members.into_iter().flatten().map(|(name, schema)| {
            let form = form(schema);
            (name.clone(), form)
        });
        Self {
            operation,
            forms: forms.collect(),
        }
    }

    async fn respond(&self, state: &ApiState, request: Request) -> Result<Response, ApiError> {
        let (mut parts, body) = request.into_parts();
        let Auth(caller) = Auth::from_request_parts(&mut parts, state).await?;
        state.bridge.rates().request(&caller)?;
        let mut arguments = self.of_path(&mut parts, state).await?;
        let headers = parts.headers.clone();
        let OriginalUri(uri) = OriginalUri::from_request_parts(&mut parts, state)
            .await
            .unwrap_or_else(|never| match never {});
        let Query(query) = Query::<Vec<(String, String)>>::from_request_parts(&mut parts, state)
            .await
            .map_err(|rejection| ApiError::Invalid(rejection.body_text()))?;
        match self.operation.method {
            Method::Get | Method::Delete => self.take_query(query, &mut arguments)?,
            Method::Post | Method::Put | Method::Patch => {
                if let Some((name, _)) = query.first() {
                    let detail = format!("`{name}` belongs into the body");
                    return Err(ApiError::Invalid(detail));
                }
                let request = Request::from_parts(parts, body);
                for (name, value) in body_object(request, state).await? {
                    add(&mut arguments, name, value)?;
                }
            }
        }
        let answer = self.perform(state, &caller, &headers, arguments).await?;
        let mut response = response(&answer);
        if self.operation.method == Method::Get && answer.status == 200 {
            let body = answer.body.as_deref().map_or("", RawValue::get);
            if let Some(links) = page_links(&uri, body) {
                response.headers_mut().insert(header::LINK, links);
            }
            response = conditions::tagged(&headers, body, response);
        }
        Ok(response)
    }

    async fn perform(
        &self,
        state: &ApiState,
        caller: &Caller,
        headers: &HeaderMap,
        arguments: Map<String, Value>,
    ) -> Result<Answer, ApiError> {
        let (bridge, operation) = (&state.bridge, self.operation);
        let condition = conditions::of_change(headers);
        Ok(match (operation.method, condition) {
            (Method::Post, _) => {
                let key = idempotency_key(headers)?;
                let once = bridge.perform_once(operation, caller, None, key, arguments);
                once.await
            }
            (Method::Put | Method::Patch | Method::Delete, Some(condition)) => {
                let change = bridge.perform_if(&condition, operation, caller, arguments);
                change.await
            }
            _ => bridge.perform(operation, caller, None, arguments).await,
        })
    }

    async fn of_path(
        &self,
        parts: &mut Parts,
        state: &ApiState,
    ) -> Result<Map<String, Value>, ApiError> {
        let path = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|rejection| ApiError::Invalid(rejection.body_text()))?;
        let pairs = path.iter().map(|(name, text)| {
            let value = self.value(name, text)?;
            Ok((name.to_owned(), value))
        });
        pairs.collect()
    }

    fn take_query(
        &self,
        query: Vec<(String, String)>,
        arguments: &mut Map<String, Value>,
    ) -> Result<(), ApiError> {
        for (name, text) in query {
            let value = self.value(&name, &text)?;
            add(arguments, name, value)?;
        }
        Ok(())
    }

    fn value(&self, name: &str, text: &str) -> Result<Value, ApiError> {
        let wrong = |what| ApiError::Invalid(format!("`{name}` is {what}, not `{text}`"));
        match self.forms.get(name) {
            Some(Form::Number) => text
                .parse::<i64>()
                .map(Value::from)
                .map_err(|_| wrong("an integer")),
            Some(Form::Truth) => text
                .parse::<bool>()
                .map(Value::from)
                .map_err(|_| wrong("true or false")),
            Some(Form::List) => Ok(text.split(',').map(Value::from).collect()),
            Some(Form::Text) | None => Ok(text.into()),
        }
    }
}

fn add(arguments: &mut Map<String, Value>, name: String, value: Value) -> Result<(), ApiError> {
    if arguments.contains_key(&name) {
        return Err(ApiError::Invalid(format!("`{name}` is given twice")));
    }
    arguments.insert(name, value);
    Ok(())
}

/// Of `{"type": "integer"}`, `{"type": ["integer", "null"]}` and their like.
fn form(schema: &Value) -> Form {
    let is = |name: &str| match schema.get("type") {
        Some(Value::String(one)) => one == name,
        Some(Value::Array(some)) => some.iter().any(|one| one == name),
        _ => schema
            .get("anyOf")
            .and_then(Value::as_array)
            .is_some_and(|some| some.iter().any(|one| one["type"] == name)),
    };
    match () {
        () if is("integer") => Form::Number,
        () if is("boolean") => Form::Truth,
        () if is("array") => Form::List,
        () => Form::Text,
    }
}

pub(super) fn response(answer: &Answer) -> Response {
    let status = StatusCode::from_u16(answer.status).expect("answers have a status of HTTP");
    let mut headers = if status.is_client_error() || status.is_server_error() {
        problem_headers(status, answer.retry_after)
    } else if answer.body.is_some() {
        let json = HeaderValue::from_static("application/json");
        HeaderMap::from_iter([(header::CONTENT_TYPE, json)])
    } else {
        HeaderMap::new()
    };
    if answer.is_replayed {
        let name = HeaderName::from_static("idempotency-replayed");
        headers.insert(name, HeaderValue::from_static("true"));
    }
    match &answer.body {
        Some(body) => (status, headers, body.get().to_owned()).into_response(),
        None => (status, headers).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_form_of_a_query_is_that_of_its_schema() {
        for (schema, expected) in [
            (json!({"type": "integer"}), Form::Number),
            (json!({"type": ["integer", "null"]}), Form::Number),
            (
                json!({"anyOf": [{"type": "integer"}, {"type": "null"}]}),
                Form::Number,
            ),
            (json!({"type": ["boolean", "null"]}), Form::Truth),
            (json!({"type": "array"}), Form::List),
            (json!({"type": "string"}), Form::Text),
            (json!(true), Form::Text),
        ] {
            assert_eq!(form(&schema), expected, "{schema}");
        }
    }
}
