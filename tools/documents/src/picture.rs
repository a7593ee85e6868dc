//! The picture of an admission, as SVG. It has a background of its own, so that it is readable on dark pages.

const WIDTH: i32 = 920;
const HEIGHT: i32 = 560;
const BACKGROUND: &str = "#ffffff";
const INK: &str = "#1f2933";
const FRAME: &str = "#9aa5b1";
/// Blue of Okabe and Ito's palette, which is distinct with colour blindness.
const ACCENT: &str = "#0072b2";
const BOX_WIDTH: i32 = 160;
const BOX_HEIGHT: i32 = 58;

/// The steps below the drawing. `docs/concepts.md` explains them.
const STEPS: [&str; 6] = [
    "A controller creates a Pod; the API server sends it to the webhook.",
    "The webhook requests a token of the Pod's service account, for Entra only.",
    "Entra exchanges it for an access token, for the registry only.",
    "The registry exchanges that for a pull token of 75 minutes or 3 hours.",
    "The webhook writes the token to a Secret, and adds the Secret to the Pod.",
    "The Pod exists. The kubelet reads the Secret and pulls the image.",
];

/// `docs/how-it-works.svg`.
pub fn svg() -> String {
    let mut drawing = Drawing::default();
    drawing.frame((20, 20), (620, 330), "Kubernetes cluster");
    drawing.frame((700, 20), (200, 330), "Azure");
    let controller = drawing.node((40, 70), "Controller", "of a ReplicaSet, Job, …");
    let api_server = drawing.node((250, 70), "API server", "");
    let webhook = drawing.node((460, 70), "acr-pull-webhook", "two replicas");
    let secret = drawing.node((250, 260), "pull Secret", "of an ACRPullSecret");
    let kubelet = drawing.node((460, 260), "kubelet", "on the node of the Pod");
    let entra = drawing.node((720, 70), "Microsoft Entra", "");
    let registry = drawing.node((720, 260), "Container Registry", "");
    drawing.arrow(controller.right(0), api_server.left(0), "1", Ends::One);
    drawing.arrow(api_server.right(-14), webhook.left(-14), "1", Ends::One);
    drawing.arrow(webhook.left(14), api_server.right(14), "2", Ends::Both);
    drawing.arrow(webhook.right(0), entra.left(0), "3", Ends::Both);
    drawing.arrow(webhook.bottom(50), registry.left(-14), "4", Ends::Both);
    drawing.arrow(webhook.bottom(-50), secret.top(50), "5", Ends::One);
    drawing.arrow(secret.right(0), kubelet.left(0), "6", Ends::One);
    drawing.arrow(registry.left(14), kubelet.right(14), "6", Ends::One);
    for (place, (step, number)) in STEPS.iter().zip(1..).enumerate() {
        let y = 384 + 29 * i32::try_from(place).unwrap_or_default();
        drawing.number((40, y), &format!("{number}"));
        drawing.text((62, y + 5), "start", 16, step);
    }
    drawing.finish()
}

/// A box with a name.
#[derive(Clone, Copy)]
struct Node {
    x: i32,
    y: i32,
}

impl Node {
    /// The middle of the left side, moved down.
    fn left(self, down: i32) -> (i32, i32) {
        (self.x, self.y + BOX_HEIGHT / 2 + down)
    }

    /// The middle of the right side, moved down.
    fn right(self, down: i32) -> (i32, i32) {
        (self.x + BOX_WIDTH, self.y + BOX_HEIGHT / 2 + down)
    }

    /// The middle of the upper side, moved to the right.
    fn top(self, right: i32) -> (i32, i32) {
        (self.x + BOX_WIDTH / 2 + right, self.y)
    }

    /// The middle of the lower side, moved to the right.
    fn bottom(self, right: i32) -> (i32, i32) {
        (self.x + BOX_WIDTH / 2 + right, self.y + BOX_HEIGHT)
    }
}

/// Which ends of a line have a head.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ends {
    One,
    Both,
}

/// The elements of the picture.
#[derive(Default)]
struct Drawing {
    elements: String,
}

impl Drawing {
    fn add(&mut self, element: &str) {
        self.elements += element;
        self.elements.push('\n');
    }

    fn text(&mut self, (x, y): (i32, i32), anchor: &str, size: i32, text: &str) {
        self.add(&format!(
            r#"<text x="{x}" y="{y}" text-anchor="{anchor}" font-size="{size}" fill="{INK}">{text}</text>"#
        ));
    }

    /// A dashed frame with a title.
    fn frame(&mut self, (x, y): (i32, i32), (width, height): (i32, i32), title: &str) {
        self.add(&format!(
            r#"<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="10" fill="none" stroke="{FRAME}" stroke-dasharray="6 4"/>"#
        ));
        self.text((x + 16, y + 26), "start", 15, title);
    }

    fn node(&mut self, (x, y): (i32, i32), name: &str, note: &str) -> Node {
        self.add(&format!(
            r#"<rect x="{x}" y="{y}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="6" fill="{BACKGROUND}" stroke="{INK}" stroke-width="1.5"/>"#
        ));
        let middle = x + BOX_WIDTH / 2;
        let first = if note.is_empty() { y + 35 } else { y + 27 };
        self.text((middle, first), "middle", 16, name);
        if !note.is_empty() {
            self.text((middle, y + 46), "middle", 12, note);
        }
        Node { x, y }
    }

    /// A line with the number of its step in the middle.
    fn arrow(&mut self, from: (i32, i32), to: (i32, i32), number: &str, ends: Ends) {
        let start = if ends == Ends::Both {
            r#" marker-start="url(#head)""#
        } else {
            ""
        };
        self.add(&format!(
            r#"<line x1="{}" y1="{}" x2="{}" y2="{}" stroke="{ACCENT}" stroke-width="2" marker-end="url(#head)"{start}/>"#,
            from.0, from.1, to.0, to.1
        ));
        self.number(((from.0 + to.0) / 2, (from.1 + to.1) / 2), number);
    }

    /// The number of a step, in a circle.
    fn number(&mut self, (x, y): (i32, i32), number: &str) {
        self.add(&format!(r#"<circle cx="{x}" cy="{y}" r="10" fill="{ACCENT}"/>"#));
        self.add(&format!(
            r#"<text x="{x}" y="{}" text-anchor="middle" font-size="13" font-weight="bold" fill="{BACKGROUND}">{number}</text>"#,
            y + 5
        ));
    }

    fn finish(self) -> String {
        format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" font-family="system-ui, sans-serif" role="img">
<title>How a Pod gets its pull Secret, in six steps</title>
<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto-start-reverse"><path d="M 0 0 L 10 5 L 0 10 z" fill="{ACCENT}"/></marker></defs>
<rect width="{WIDTH}" height="{HEIGHT}" rx="12" fill="{BACKGROUND}"/>
{}</svg>
"#,
            self.elements
        )
    }
}
