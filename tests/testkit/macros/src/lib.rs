//! The attribute of asynchronous tests with a deadline.

use proc_macro::TokenStream;
use quote::quote;
use syn::{ItemFn, parse_macro_input};

/// Runs an asynchronous test with a deadline; see `testkit::run`.
#[proc_macro_attribute]
pub fn test(_: TokenStream, item: TokenStream) -> TokenStream {
    let ItemFn {
        attrs,
        vis,
        sig,
        block,
        ..
    } = parse_macro_input!(item as ItemFn);
    let name = sig.ident;
    quote! {
        #[test]
        #(#attrs)*
        #vis fn #name() {
            ::testkit::run(concat!(module_path!(), "::", stringify!(#name)), async #block);
        }
    }
    .into()
}
