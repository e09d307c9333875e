//! The table against the types whose options it describes.

use std::str::FromStr;

use candle_phi_kernels::{Isa, Threads};

use super::*;
use crate::{
    ChatFormat, DeviceSpec, ErrorKind, ExecutorKind, GenerationOptions, KvDtype, LoadOptions, OnOverflow,
    RopeFactors, SamplingOptions, SessionOptions,
};

/// A default as the table writes it: None is what is not set.
fn default(name: &str) -> DefaultValue {
    find(name).unwrap_or_else(|| panic!("{name} is not in the table")).default
}

fn is_unset(name: &str) -> bool {
    matches!(default(name), DefaultValue::Unset(_))
}

fn names(scope: Scope) -> Vec<&'static str> {
    OPTIONS.iter().filter(|option| option.scope == scope).map(|option| option.name).collect()
}

#[test]
fn each_option_is_there_once_and_documented() {
    for (index, option) in OPTIONS.iter().enumerate() {
        let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
        assert!(option.name.chars().all(is_name), "{}", option.name);
        assert!(option.help.ends_with('.') && !option.help.contains('\n'), "{}", option.name);
        assert!(option.is_in(Interface::Python), "{}", option.name);
        assert!(!option.is_in(Interface::Set) || option.scope == Scope::Generation, "{}", option.name);
        assert!(OPTIONS.iter().skip(index + 1).all(|other| other.name != option.name), "{}", option.name);
    }
}

// No `..` in the patterns of these tests: a new field must get a line here.

#[test]
fn the_defaults_of_a_generation_are_the_tables() {
    let GenerationOptions {
        max_tokens,
        min_tokens,
        timeout,
        sampling,
        stop,
        stop_token_ids,
        logprobs,
        ignore_eos,
        echo,
        on_overflow,
    } = GenerationOptions::default();
    let SamplingOptions {
        temperature,
        top_k,
        typical_p,
        top_p,
        min_p,
        repetition_penalty,
        repeat_last_n,
        presence_penalty,
        frequency_penalty,
        logit_bias,
        seed,
    } = sampling;
    let float = |number: f32| DefaultValue::Float(f64::from(number));
    assert_eq!(max_tokens.is_none(), is_unset("max_tokens"));
    assert_eq!(DefaultValue::Int(min_tokens as u64), default("min_tokens"));
    assert_eq!(timeout.is_none(), is_unset("timeout"));
    assert_eq!(DefaultValue::Float(temperature), default("temperature"));
    assert_eq!(top_k.is_none(), is_unset("top_k"));
    assert_eq!(typical_p.is_none(), is_unset("typical_p"));
    assert_eq!(top_p.is_none(), is_unset("top_p"));
    assert_eq!(min_p.is_none(), is_unset("min_p"));
    assert_eq!(float(repetition_penalty), default("repetition_penalty"));
    assert_eq!(DefaultValue::Int(repeat_last_n as u64), default("repeat_last_n"));
    assert_eq!(float(presence_penalty), default("presence_penalty"));
    assert_eq!(float(frequency_penalty), default("frequency_penalty"));
    assert_eq!(logit_bias.is_empty(), is_unset("logit_bias"));
    assert_eq!(stop.is_empty(), is_unset("stop"));
    assert_eq!(stop_token_ids.is_empty(), default("stop_token_ids") == DefaultValue::Empty);
    assert_eq!(seed.is_none(), is_unset("seed"));
    assert_eq!(logprobs.is_none(), is_unset("logprobs"));
    assert_eq!(DefaultValue::Bool(ignore_eos), default("ignore_eos"));
    assert_eq!(DefaultValue::Bool(echo), default("echo"));
    assert_eq!(DefaultValue::Text(on_overflow.as_str()), default("on_overflow"));
}

#[test]
fn the_defaults_of_a_session_are_the_tables() {
    let SessionOptions { n_ctx, kv_dtype, n_threads, isa, prefill_chunk, rope_factors } =
        SessionOptions::default();
    assert_eq!(n_ctx.is_none(), is_unset("n_ctx"));
    assert_eq!(DefaultValue::Text(kv_dtype.as_str()), default("kv_dtype"));
    assert_eq!(n_threads.is_none(), is_unset("n_threads"));
    assert_eq!(isa.is_none(), is_unset("isa"));
    assert_eq!(prefill_chunk.is_none(), is_unset("prefill_chunk"));
    assert_eq!(DefaultValue::Text(rope_factors.as_str()), default("rope_factors"));
    assert_eq!(names(Scope::Session).len(), 6);
}

#[test]
fn the_defaults_of_loading_are_the_tables() {
    let LoadOptions {
        tokenizer,
        device,
        executor,
        mmap,
        prefault,
        mlock,
        rstrip_control_tokens,
        chat_format,
        sliding_window,
    } = LoadOptions::default();
    assert_eq!(tokenizer.is_none(), is_unset("tokenizer"));
    assert_eq!(default("device"), DefaultValue::Text("auto"));
    assert_eq!(device, DeviceSpec::Auto);
    assert_eq!(DefaultValue::Text(executor.as_str()), default("executor"));
    assert_eq!(DefaultValue::Bool(mmap), default("mmap"));
    assert_eq!(DefaultValue::Bool(prefault), default("prefault"));
    assert_eq!(DefaultValue::Bool(mlock), default("mlock"));
    assert_eq!(DefaultValue::Bool(rstrip_control_tokens), default("rstrip_control_tokens"));
    assert_eq!(chat_format.is_none(), is_unset("chat_format"));
    assert_eq!(sliding_window.is_none(), is_unset("sliding_window"));
    assert_eq!(names(Scope::Loading).len(), 9);
}

/// Whether a type reads all choices of an option, and refuses everything else with them in the message.
fn reads_choices<T: FromStr<Err = Error>>(name: &str, as_str: impl Fn(&T) -> String) {
    let Some(Kind::Choice(choices)) = find(name).map(|option| option.kind) else {
        panic!("{name} has no choices")
    };
    for choice in choices {
        let read: T = choice.parse().unwrap_or_else(|error: Error| panic!("{name}: {error}"));
        assert_eq!(as_str(&read), *choice, "{name}");
    }
    let error = "no such thing".parse::<T>().err().unwrap();
    assert_eq!((error.kind(), error.option()), (ErrorKind::InvalidOption, Some(name)));
    assert!(choices.iter().all(|choice| error.to_string().contains(choice)), "{error}");
}

#[test]
fn the_choices_are_those_of_the_types() {
    reads_choices("on_overflow", |value: &OnOverflow| value.as_str().to_owned());
    reads_choices("kv_dtype", |value: &KvDtype| value.as_str().to_owned());
    reads_choices("rope_factors", |value: &RopeFactors| value.as_str().to_owned());
    reads_choices("executor", |value: &ExecutorKind| value.as_str().to_owned());
    reads_choices("chat_format", |value: &ChatFormat| value.to_string());
    let isas: Vec<&str> = Isa::ALL.into_iter().map(Isa::name).collect();
    assert_eq!(find("isa").unwrap().kind, Kind::Choice(isas.leak()));
    assert_eq!(find("n_threads").unwrap().kind, Kind::Int { min: 1, max: Threads::MOST as u64 });
}

#[test]
fn a_number_out_of_range_names_the_option_the_range_and_the_number() {
    let cases: [(&str, Number, &str); 14] = [
        ("max_tokens", Number::Int(0), "must be at least 1, got 0; use None for no limit"),
        ("max_tokens", Number::Int(-5), "must be at least 1, got -5; use None for no limit"),
        ("seed", Number::Int(-1), "must be at least 0, got -1; use None for a random seed"),
        ("seed", Number::Int(1 << 64), "must be from 0 to 18446744073709551615, got 18446744073709551616"),
        ("n_threads", Number::Int(1025), "must be from 1 to 1024, got 1025"),
        ("top_p", Number::Float(2.0), "must be above 0 and at most 1, got 2"),
        ("top_p", Number::Float(0.0), "must be above 0 and at most 1, got 0; use None for all tokens"),
        ("min_p", Number::Float(1.5), "must be from 0 to 1, got 1.5"),
        ("timeout", Number::Float(0.0), "must be a finite number above 0, got 0; use None for no limit"),
        ("timeout", Number::Float(f64::INFINITY), "must be a finite number above 0, got inf"),
        (
            "temperature",
            Number::Float(f64::NAN),
            "must be from 0 to 1000000 (0 always takes the most likely token), got nan",
        ),
        ("repetition_penalty", Number::Single(1e-4), "must be from 0.001 to 1000 (1 disables it), got 0.0001"),
        ("presence_penalty", Number::Float(1e300), "must be from -1000000 to 1000000 (0 disables it), got 1e300"),
        (
            "logit_bias",
            Number::Float(1e9),
            "must be from -1000000 to 1000000 (-inf forbids a token), got 1000000000",
        ),
    ];
    for (name, number, problem) in cases {
        let error = check(name, number).unwrap_err();
        assert_eq!(error.to_string(), format!("{name} {problem}"));
        assert_eq!((error.kind(), error.option()), (ErrorKind::InvalidOption, Some(name)));
    }
}

#[test]
fn the_bounds_of_a_range_are_in_it() {
    for (name, number) in [
        ("max_tokens", Number::Int(1)),
        ("max_tokens", Number::Int(u64::MAX.into())),
        ("top_p", Number::Float(1.0)),
        ("top_p", Number::Float(f64::MIN_POSITIVE)),
        ("min_p", Number::Float(0.0)),
        ("temperature", Number::Float(1e6)),
        ("repetition_penalty", Number::Single(1e-3)),
        ("frequency_penalty", Number::Single(-1e6)),
        ("logit_bias", Number::Single(f32::NEG_INFINITY)),
        ("logit_bias", Number::Single(-1e6)),
        ("timeout", Number::Float(1e300)),
        ("n_threads", Number::Int(1024)),
        ("sliding_window", Number::Int(0)),
    ] {
        check(name, number).unwrap();
    }
    assert_eq!(
        check_at("logit_bias", 1e9, " for token 3").unwrap_err().to_string(),
        "logit_bias must be from -1000000 to 1000000 (-inf forbids a token), got 1000000000 for token 3"
    );
    for (name, number) in [("logit_bias", f64::INFINITY), ("logit_bias", f64::NAN), ("logit_bias", -1e7)] {
        assert_eq!(check(name, number).unwrap_err().option(), Some(name));
    }
}
