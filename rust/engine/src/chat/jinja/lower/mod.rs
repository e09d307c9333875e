//! Rewrites a template so that every operator, method and literal that makes or walks a container is a call of a function
//! whose work is counted ([`operators`](super::operators)).
//!
//! The engine counts its instructions and the bytes it moves, but its own operators visit whatever a list holds, and a
//! list that holds another one twice, sixty times over, takes no memory and has no end. The library parses the template;
//! what it makes of it is written again as source, which only this module's output reaches.

mod expression;

use std::collections::BTreeSet;

use minijinja::machinery::ast::{Expr, Macro, Stmt};
use minijinja::machinery::{Span, parse};

use super::{MAX_ATTRIBUTES, NAME, problem, whitespace};
use crate::{Error, Result};

/// The template in the calls of this module's functions, line by line.
pub(super) fn lower(source: &str) -> Result<String> {
    let template = parse(source, NAME, whitespace()?).map_err(|error| super::does_not_compile(&error))?;
    let mut writer = Writer { out: String::with_capacity(2 * source.len()), line: 1, attributes: BTreeSet::new() };
    writer.statement(&template)?;
    Ok(writer.out)
}

struct Writer {
    out: String,
    /// The line of the output, which follows that of the source, for errors.
    line: u16,
    /// The attributes of namespaces that are assigned to.
    attributes: BTreeSet<String>,
}

impl Writer {
    fn push(&mut self, text: &str) {
        self.out.push_str(text);
    }

    /// A tag that stands in the line of the source.
    fn tag(&mut self, opening: &str, span: Span) {
        self.push(opening);
        while self.line < span.start_line {
            self.out.push('\n');
            self.line += 1;
        }
        self.push(" ");
    }

    fn end(&mut self, name: &str) {
        self.push("{% ");
        self.push(name);
        self.push(" %}");
    }

    fn body(&mut self, body: &[Stmt<'_>]) -> Result<()> {
        body.iter().try_for_each(|statement| self.statement(statement))
    }

    fn statement(&mut self, statement: &Stmt<'_>) -> Result<()> {
        match statement {
            Stmt::Template(template) => self.body(&template.children)?,
            Stmt::EmitRaw(raw) => {
                if !raw.raw.is_empty() {
                    self.tag("{{", raw.span());
                    self.quoted(raw.raw);
                    self.push(" }}");
                }
            }
            Stmt::EmitExpr(emitted) => {
                self.tag("{{", emitted.span());
                self.expression(&emitted.expr)?;
                self.push(" }}");
            }
            Stmt::ForLoop(each) => {
                self.tag("{%", each.span());
                self.push("for ");
                self.target(&each.target, false)?;
                self.push(" in ");
                self.expression(&each.iter)?;
                self.push("|__iter");
                if let Some(filter) = &each.filter_expr {
                    self.push(" if (");
                    self.expression(filter)?;
                    self.push(")");
                }
                self.push(if each.recursive { " recursive %}" } else { " %}" });
                self.body(&each.body)?;
                if !each.else_body.is_empty() {
                    self.end("else");
                    self.body(&each.else_body)?;
                }
                self.end("endfor");
            }
            Stmt::IfCond(condition) => {
                let mut condition = condition;
                let mut keyword = "if (";
                loop {
                    self.tag("{%", condition.span());
                    self.push(keyword);
                    self.expression(&condition.expr)?;
                    self.push(") %}");
                    self.body(&condition.true_body)?;
                    match condition.false_body.as_slice() {
                        [] => break,
                        [Stmt::IfCond(next)] => {
                            condition = next;
                            keyword = "elif (";
                        }
                        other => {
                            self.end("else");
                            self.body(other)?;
                            break;
                        }
                    }
                }
                self.end("endif");
            }
            Stmt::WithBlock(with) => {
                self.tag("{%", with.span());
                self.push("with ");
                for (index, (target, value)) in with.assignments.iter().enumerate() {
                    self.push(if index > 0 { ", " } else { "" });
                    self.target(target, true)?;
                    self.push(" = ");
                    self.expression(value)?;
                }
                self.push(" %}");
                self.body(&with.body)?;
                self.end("endwith");
            }
            Stmt::Set(set) => {
                self.tag("{%", set.span());
                self.push("set ");
                self.target(&set.target, false)?;
                self.push(" = ");
                self.expression(&set.expr)?;
                self.push(if matches!(set.target, Expr::GetAttr(_)) { "|__store %}" } else { " %}" });
            }
            Stmt::SetBlock(set) => {
                self.tag("{%", set.span());
                self.push("set ");
                self.target(&set.target, false)?;
                if let Some(filter) = &set.filter {
                    self.push("|");
                    self.filters(filter, set.span())?;
                }
                self.push(" %}");
                self.body(&set.body)?;
                self.end("endset");
            }
            Stmt::FilterBlock(block) => {
                self.tag("{%", block.span());
                self.push("filter ");
                self.filters(&block.filter, block.span())?;
                self.push(" %}");
                self.body(&block.body)?;
                self.end("endfilter");
            }
            Stmt::Block(block) => {
                self.tag("{%", block.span());
                self.push("block ");
                self.push(block.name);
                self.push(" %}");
                self.body(&block.body)?;
                self.end("endblock");
            }
            Stmt::Macro(made) => {
                self.tag("{%", made.span());
                self.push("macro ");
                self.push(made.name);
                self.parameters(made)?;
                self.push(" %}");
                self.body(&made.body)?;
                self.end("endmacro");
            }
            Stmt::CallBlock(block) => {
                self.tag("{%", block.span());
                self.push("call");
                self.parameters(&block.macro_decl)?;
                self.push(" ");
                self.call(&block.call, block.span())?;
                self.push(" %}");
                self.body(&block.macro_decl.body)?;
                self.end("endcall");
            }
            Stmt::Continue(_) => self.end("continue"),
            Stmt::Break(_) => self.end("break"),
            Stmt::AutoEscape(other) => return Err(unsupported(other.span(), "autoescape")),
            Stmt::Do(other) => return Err(unsupported(other.span(), "do")),
            Stmt::Import(other) => return Err(unsupported(other.span(), "import")),
            Stmt::FromImport(other) => return Err(unsupported(other.span(), "from")),
            Stmt::Extends(other) => return Err(unsupported(other.span(), "extends")),
            Stmt::Include(other) => return Err(unsupported(other.span(), "include")),
        }
        Ok(())
    }

    fn parameters(&mut self, made: &Macro<'_>) -> Result<()> {
        self.push("(");
        let without_default = made.args.len().saturating_sub(made.defaults.len());
        for (index, argument) in made.args.iter().enumerate() {
            self.push(if index > 0 { ", " } else { "" });
            self.target(argument, true)?;
            if let Some(default) = index.checked_sub(without_default).and_then(|index| made.defaults.get(index)) {
                self.push("=");
                self.expression(default)?;
            }
        }
        self.push(")");
        Ok(())
    }

    /// What is assigned to: a name, several in a tuple, or an attribute of a namespace.
    fn target(&mut self, target: &Expr<'_>, nested: bool) -> Result<()> {
        let names = match target {
            Expr::Var(name) => {
                self.push(name.id);
                return Ok(());
            }
            Expr::GetAttr(attribute) => {
                self.attributes.insert(attribute.name.to_owned());
                if self.attributes.len() > MAX_ATTRIBUTES {
                    let reason = format!("more than {MAX_ATTRIBUTES} attributes of namespaces are not supported");
                    return Err(problem(attribute.span().start_line, &reason));
                }
                self.primary(&attribute.expr)?;
                self.push(".");
                self.push(attribute.name);
                return Ok(());
            }
            Expr::Tuple(names) => &names.items,
            Expr::List(names) => &names.items,
            other => return Err(problem(other.span().start_line, "cannot assign to an expression")),
        };
        self.push(if nested { "(" } else { "" });
        for (index, name) in names.iter().enumerate() {
            self.push(if index > 0 { ", " } else { "" });
            self.target(name, true)?;
        }
        self.push(if names.len() == 1 { "," } else { "" });
        self.push(if nested { ")" } else { "" });
        Ok(())
    }
}

fn unsupported(span: Span, tag: &str) -> Error {
    problem(span.start_line, &format!("the tag {tag:?} is not supported"))
}
