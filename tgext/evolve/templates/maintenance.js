(function () {
  'use strict';
  var here = document.currentScript;
  var address = here.getAttribute('data-status'), again = here.getAttribute('data-again') === 'yes';
  var quick = 1000, slow = 5000, patient = 30000;  // milliseconds between two looks
  var pause = quick, timer = null, looking = false, finished = false, opened = 0, missing = 0;
  var showing = '', promised = 0, over = 0, shown = null, rising = 0, quarter = 0;

  function part(name) { return document.querySelector('[data-evolve="' + name + '"]'); }
  function write(name, text) {
    var at = part(name);
    if (!at) { return; }
    if (at.textContent !== text) { at.textContent = text; }
  }
  function language() { return document.documentElement.lang || 'en'; }
  function number(value, unit) {
    try { return new Intl.NumberFormat(language(), {style: 'unit', unit: unit, unitDisplay: 'long'}).format(value); }
    catch (e) { return value + ' ' + unit + (value === 1 ? '' : 's'); }
  }
  function percentage(fraction) {
    // Rounded down: 100 % is when it is done.
    return new Intl.NumberFormat(language(), {style: 'percent'}).format(Math.floor(fraction * 100 + 1e-6) / 100);
  }

  // What is left, as coarse as it is uncertain: how many of which unit.
  function coarse(seconds) {
    if (seconds <= 10) { return [0, 'second', 0]; }
    if (seconds <= 90) { var tens = Math.ceil(seconds / 10) * 10; return [tens, 'second', tens]; }
    if (seconds <= 5400) { var minutes = Math.ceil(seconds / 60); return [minutes, 'minute', minutes * 60]; }
    var hours = Math.ceil(seconds / 3600);
    return [hours, 'hour', hours * 3600];
  }

  function estimate(progress) {
    var at = part('left');
    if (!at) { return ''; }
    if (progress.late) { shown = null; return at.getAttribute('data-late') || ''; }
    if (typeof progress.remaining !== 'number') { return shown === null || progress.fraction === 1 ? '' : at.textContent; }
    var now = Date.now(), found = coarse(progress.remaining);
    if (!promised) { promised = now + progress.remaining * 1000; over = promised + Math.max(30000, progress.remaining * 500); }
    // It falls at once, and rises only when that is no mere wavering.
    rising = shown !== null && found[2] > shown[2] ? rising + 1 : 0;
    if (shown === null || found[2] <= shown[2] || rising >= 3) { shown = found; rising = 0; }
    var words = shown[0] ? at.getAttribute('data-words').replace('{time}', number(shown[0], shown[1])) : at.getAttribute('data-soon');
    return (now > over ? at.getAttribute('data-longer') || '' : '') + words;
  }

  function say(text) { write('spoken', text); }

  function showProgress(state) {
    var progress = state.progress, box = part('progress'), track = part('track'), bar = part('bar');
    var runs = state.situation === 'updating' || state.situation === 'reading';
    if (box) { box.hidden = !runs; }
    var known = runs && progress && typeof progress.fraction === 'number';
    if (!known) { promised = 0; shown = null; quarter = 0; }
    var percent = known ? percentage(progress.fraction) : '', left = known ? estimate(progress) : '';
    if (track) {
      track.setAttribute('data-known', known ? 'yes' : 'no');
      if (known) {
        track.setAttribute('aria-valuenow', Math.floor(progress.fraction * 100 + 1e-6));
        track.setAttribute('aria-valuetext', left ? percent + ', ' + left : percent);
      } else {
        track.removeAttribute('aria-valuenow');
        track.removeAttribute('aria-valuetext');
      }
    }
    if (bar) { bar.style.transform = known ? 'scaleX(' + progress.fraction + ')' : ''; }
    var words = part('percent');
    write('percent', known && words ? (words.getAttribute('data-words') || '{percent}').replace('{percent}', percent) : '');
    write('left', left);
    if (part('tab')) { document.title = (known ? percent + ' · ' : '') + state.heading; }
    // Who listens hears of every quarter, not of every second.
    var now = known ? Math.floor(progress.fraction * 4) : 0;
    if (known && now < quarter) { promised = 0; shown = null; }
    if (now > quarter) { say(left ? percent + ', ' + left : percent); }
    quarter = now;
  }

  function told() {
    return ['title', 'text', 'note'].map(function (name) { var at = part(name); return at ? at.textContent : ''; }).join(' ').trim();
  }

  function show(state) {
    var key = [state.situation, state.heading, state.text, state.note].join('\n');
    var at = part('situation');
    if (at) { at.setAttribute('data-situation', state.situation); }
    var before = told();
    ['text', 'note', 'details'].forEach(function (name) { write(name, state[name] || ''); });
    write('title', state.heading);
    if (told() !== before) { say(told()); }
    showProgress(state);
    var changed = key + JSON.stringify(state.progress && state.progress.done);
    pause = showing === changed ? Math.min(pause * 1.4, slow) : quick;
    showing = changed;
  }

  // A page that comes back closed again and again is not asked for ever faster.
  function reload() {
    var name = 'evolve-reloads ' + location.pathname, before = null, wait = 0, now = Date.now();
    try { before = JSON.parse(sessionStorage.getItem(name)); } catch (e) { before = null; }
    var times = before && now - before.at < 120000 ? before.times + 1 : 0;
    try { sessionStorage.setItem(name, JSON.stringify({at: now, times: times})); } catch (e) { times = 3; }
    wait = times ? Math.min(1000 * Math.pow(2, times), 60000) : Math.random() * 500;
    setTimeout(function () { location.reload(); }, wait);
  }

  function open() {
    finished = true;
    if (again) { reload(); return; }
    // What was sent is not sent again behind the user's back.
    var hint = part('hint'), back = part('back'), box = part('progress');
    if (hint) { hint.textContent = hint.getAttribute('data-back') || ''; say(hint.textContent); }
    if (box) { box.hidden = true; }
    if (back) {
      back.hidden = false;
      back.querySelector('button').onclick = function () { history.back(); };
    }
  }

  function later(wait) {
    clearTimeout(timer);
    // Not all at the same time, and seldom where nobody looks.
    if (document.visibilityState === 'hidden') { wait = Math.max(wait, 3 * slow); }
    timer = setTimeout(look, wait * (0.8 + Math.random() * 0.4));
  }

  function failed() {
    opened = 0;
    pause = Math.min(pause * 2, patient);
    later(pause);
  }

  function took(state) {
    if (!state || typeof state.serving !== 'string') { failed(); return; }
    missing = 0;
    if (state.serving === 'everything' || (again && state.serving === 'reads')) {
      // Asked twice: one process may be ahead of the one that will answer.
      opened += 1;
      if (opened > 1) { open(); } else { later(300); }
      return;
    }
    opened = 0;
    show(state);
    later(pause);
  }

  function look() {
    if (looking || finished) { return; }
    looking = true;
    var stop = window.AbortController ? new AbortController() : null;
    var limit = setTimeout(function () { if (stop) { stop.abort(); } }, 10000);
    fetch(address, {cache: 'no-store', headers: {Accept: 'application/json'}, signal: stop ? stop.signal : undefined})
      .then(function (response) {
        if (response.status === 404) { missing += 1; }
        // There is no status any more: only the page itself can tell.
        if (missing > 2) { return {serving: 'everything'}; }
        return response.json();
      })
      .then(function (state) { looking = false; clearTimeout(limit); took(state); })
      .catch(function () { looking = false; clearTimeout(limit); failed(); });
  }

  function begin() {
    var scripted = part('scripted'), unscripted = part('unscripted');
    if (scripted) { scripted.hidden = false; }
    if (unscripted) { unscripted.hidden = true; }
    later(quick / 2);
    document.addEventListener('visibilitychange', function () {
      if (document.visibilityState === 'visible') { pause = quick; later(0); }
    });
    window.addEventListener('online', function () { pause = quick; later(0); });
  }
  if (document.readyState === 'loading') { document.addEventListener('DOMContentLoaded', begin); } else { begin(); }
})();
