//! What customers do in the shop, as trees of calls: data only, `shop` walks it.

/// One call of a service, and the calls it makes.
#[derive(Debug)]
pub struct Step {
    /// Who is called.
    pub service: &'static str,
    /// What is called: the span's name.
    pub name: &'static str,
    /// What the caller uses: `http`, `rpc` or `db`.
    pub system: &'static str,
    /// Own work in milliseconds, without that of the calls below.
    pub mean_ms: f64,
    /// Probability of failing by itself.
    pub failure: f64,
    /// The calls it makes, one after the other.
    pub calls: &'static [Step],
}

const fn step(
    service: &'static str,
    name: &'static str,
    system: &'static str,
    mean_ms: f64,
    failure: f64,
    calls: &'static [Step],
) -> Step {
    Step { service, name, system, mean_ms, failure, calls }
}

/// Journeys with their share in a hundred.
pub static JOURNEYS: &[(u64, Step)] = &[(55, BROWSE), (25, ADD_TO_CART), (20, CHECKOUT)];

const BROWSE: Step = step(
    "frontend",
    "GET /products/{id}",
    "http",
    4.0,
    0.001,
    &[
        step(
            "catalog",
            "catalog.Catalog/GetProduct",
            "rpc",
            2.0,
            0.002,
            &[step("catalog-db", "SELECT products", "db", 1.5, 0.0005, &[])],
        ),
        step(
            "recommendation",
            "recommendation.Recommendation/List",
            "rpc",
            6.0,
            0.004,
            &[step("catalog", "catalog.Catalog/ListProducts", "rpc", 3.0, 0.001, &[])],
        ),
        step("currency", "currency.Currency/Convert", "rpc", 0.6, 0.0002, &[]),
    ],
);

const ADD_TO_CART: Step = step(
    "frontend",
    "POST /cart",
    "http",
    3.0,
    0.001,
    &[step(
        "cart",
        "cart.Cart/AddItem",
        "rpc",
        1.5,
        0.002,
        &[step("cart-cache", "HSET", "db", 0.4, 0.0005, &[])],
    )],
);

const CHECKOUT: Step = step(
    "frontend",
    "POST /checkout",
    "http",
    5.0,
    0.001,
    &[step(
        "checkout",
        "checkout.Checkout/PlaceOrder",
        "rpc",
        8.0,
        0.002,
        &[
            step(
                "cart",
                "cart.Cart/Get",
                "rpc",
                1.2,
                0.001,
                &[step("cart-cache", "HGETALL", "db", 0.5, 0.0005, &[])],
            ),
            step("currency", "currency.Currency/Convert", "rpc", 0.6, 0.0002, &[]),
            step(
                "payment",
                "payment.Payment/Charge",
                "rpc",
                35.0,
                0.01,
                &[step("bank", "POST /authorize", "http", 60.0, 0.005, &[])],
            ),
            step("shipping", "shipping.Shipping/ShipOrder", "rpc", 9.0, 0.002, &[]),
            step("email", "email.Email/SendConfirmation", "rpc", 12.0, 0.004, &[]),
        ],
    )],
);

/// Customers. All of it is made up: documentation domains, test cards.
pub static CUSTOMERS: &[(&str, &str)] = &[
    ("jane.doe@example.com", "4111 1111 1111 1111"),
    ("omar.haddad@example.org", "5555 5555 5555 4444"),
    ("li.wei@example.net", "3782 822463 10005"),
    ("ana.souza@example.com", "4012 8888 8888 1881"),
    ("noor@example.org", "6011 1111 1111 1117"),
];

/// Where customers are.
pub static COUNTRIES: &[&str] = &["DE", "BR", "JP", "KE", "US"];

/// What the shop sells.
pub static PRODUCTS: &[(&str, u64)] =
    &[("lamp", 3900), ("kettle", 2450), ("desk", 18900), ("mug", 900), ("clock", 4200), ("blanket", 3150)];

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(step: &Step) -> u64 {
        1 + step.calls.iter().map(|call| 1 + spans(call)).sum::<u64>()
    }

    /// At four journeys a second that is about fifty spans a second.
    #[test]
    fn the_mean_journey_has_about_twelve_spans() {
        let shares: u64 = JOURNEYS.iter().map(|(share, _)| share).sum();
        assert_eq!(shares, 100);
        let spans: u64 = JOURNEYS.iter().map(|(share, step)| share * spans(step)).sum();
        assert!((900..1500).contains(&spans), "{spans} in a hundred");
    }
}
