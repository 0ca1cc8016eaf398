// How numbers, times and states are said. Pure: values in, text out.

/** "1 kernel", "12 kernels". */
export function count(number, one, many = `${one}s`) {
  return `${grouped(number)} ${number === 1 ? one : many}`;
}

/** 12345 → "12 345", with a thin space that does not break. */
export function grouped(number) {
  return String(number).replace(/\B(?=(\d{3})+(?!\d))/g, "\u202f");
}

/** Bytes in powers of 1024, three digits at most. */
export function bytes(number) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  let value = number;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || value >= 9.95 ? 0 : 1;
  return `${value.toFixed(digits)} ${units[unit]}`;
}

/** Seconds as a rough span: "4 s", "12 min", "3 h", "2 d". */
export function span(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 90) return `${whole} s`;
  if (whole < 90 * 60) return `${Math.round(whole / 60)} min`;
  if (whole < 36 * 3600) return `${Math.round(whole / 3600)} h`;
  return `${Math.round(whole / 86400)} d`;
}

/** How long before `now` (both ms since 1970); the past is never said to be in the future. */
export function ago(then, now) {
  if (then === null) return "never";
  const seconds = (now - then) / 1000;
  return seconds < 1.5 ? "just now" : `${span(seconds)} ago`;
}

/** "14:03:07", in the reader's own time zone. */
export function clock(time) {
  return new Date(time).toLocaleTimeString("en-GB", { hour12: false });
}

/** "14:03", or "23 Nov 14:03" when that was another day than `now`'s. */
export function moment(time, now) {
  const date = new Date(time);
  const day = { day: "numeric", month: "short" };
  const today = date.toDateString() === new Date(now).toDateString();
  return today ? clock(time) : `${date.toLocaleDateString("en-GB", day)} ${clock(time)}`;
}

/** The first part of a UUID, which people compare. */
export function shortId(id) {
  return /^[0-9a-f]{8}-[0-9a-f]{4}-/.test(id) ? id.slice(0, 8) : id;
}

/** "a", "a and b", "a, b and c". */
export function listed(words) {
  if (words.length < 2) return words.join("");
  return `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`;
}
