// Numbers, money and times as the reader's locale writes them.

const locale = undefined; // the browser's
const whole = new Intl.NumberFormat(locale, { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat(locale, { notation: "compact", maximumFractionDigits: 1 });
const one = new Intl.NumberFormat(locale, { maximumFractionDigits: 1 });
const percent = new Intl.NumberFormat(locale, { style: "percent", maximumFractionDigits: 0 });
const fine = new Intl.NumberFormat(locale, { style: "percent", maximumFractionDigits: 1 });
const clock = new Intl.DateTimeFormat(locale, { hour: "2-digit", minute: "2-digit" });
const exact = new Intl.DateTimeFormat(locale, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat(locale, { weekday: "short", hour: "2-digit", minute: "2-digit" });

export const NONE = "–";
const or = (format) => (value) => (value == null || Number.isNaN(value) ? NONE : format(value));

export const count = or((value) => whole.format(value));
export const compact = or((value) => short.format(value));
export const decimal = or((value) => one.format(value));
export const share = or((value) => (Math.abs(value) < 0.1 ? fine : percent).format(value));
export const time = or((at) => clock.format(new Date(at)));
export const seconds = or((at) => exact.format(new Date(at)));
/** The time, with the day where it is another one. */
export const when = or((at) => (new Date(at).toDateString() === new Date().toDateString() ? clock : day).format(new Date(at)));

/** Money is told in minor units: how many of them make one depends on the currency (KRW: 1, USD: 100). */
export function money(currency) {
  try {
    const long = new Intl.NumberFormat(locale, { style: "currency", currency, currencyDisplay: "narrowSymbol" });
    const digits = long.resolvedOptions().maximumFractionDigits;
    const small = new Intl.NumberFormat(locale, { style: "currency", currency, currencyDisplay: "narrowSymbol", notation: "compact", maximumFractionDigits: 1 });
    const minor = 10 ** digits;
    return { full: or((value) => long.format(value / minor)), short: or((value) => small.format(value / minor)) };
  } catch {
    return { full: or((value) => `${whole.format(value)} ${currency}`), short: or((value) => `${short.format(value)} ${currency}`) };
  }
}

/** How long something takes or is old. */
export function span(s) {
  if (s == null) return NONE;
  if (s < 10) return `${one.format(s)} s`;
  if (s < 120) return `${whole.format(s)} s`;
  if (s < 7200) return `${whole.format(s / 60)} min`;
  return `${one.format(s / 3600)} h`;
}
