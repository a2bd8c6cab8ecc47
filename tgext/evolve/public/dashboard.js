'use strict';
(function () {
  const base = document.body.dataset.base, enter = document.body.dataset.enter;
  const $ = function (id) { return document.getElementById(id); };
  // What was drawn last, by section: what has not changed is not drawn again.
  const drawn = {};
  const errors = new Map(); // the mark of a failure -> the text of its error, null while it is asked for
  const opened = new Set();
  let state = null, token = null, seenAt = 0, timer = null, busy = false;

  // -- small helpers. Nothing is ever parsed as HTML: ids, messages and tracebacks are anybody's text.

  function h(tag, attributes) {
    const element = document.createElement(tag);
    Object.entries(attributes || {}).forEach(function (pair) {
      const name = pair[0], value = pair[1];
      if (value === null || value === undefined || value === false) { return; }
      if (name === 'on') { Object.entries(value).forEach(function (each) { element.addEventListener(each[0], each[1]); }); }
      else if (name === 'class') { element.className = value; }
      else if (name === 'share') { element.style.width = Math.max(0, Math.min(1, value)) * 100 + '%'; }
      else if (name === 'from') { element.style.marginLeft = Math.max(0, Math.min(1, value)) * 100 + '%'; }
      else { element.setAttribute(name, value === true ? '' : value); }
    });
    for (let i = 2; i < arguments.length; i++) { add(element, arguments[i]); }
    return element;
  }
  function add(element, child) {
    if (Array.isArray(child)) { child.forEach(function (each) { add(element, each); }); }
    else if (child !== null && child !== undefined && child !== false && child !== '') { element.append(child); }
  }
  function duration(seconds) {
    if (seconds === null || seconds === undefined) { return ''; }
    if (seconds < 0.9995) { return Math.round(seconds * 1000) + ' ms'; }
    if (seconds < 59.95) { return seconds.toFixed(1) + ' s'; }
    const whole = Math.round(seconds);
    if (whole < 3600) { return Math.floor(whole / 60) + ' min ' + whole % 60 + ' s'; }
    if (whole < 172800) { return Math.floor(whole / 3600) + ' h ' + Math.floor(whole % 3600 / 60) + ' min'; }
    return Math.round(whole / 86400) + ' days';
  }
  function about(seconds) {
    if (seconds < 10) { return 'a few seconds'; }
    if (seconds < 90) { return 'about ' + Math.ceil(seconds / 10) * 10 + ' s'; }
    if (seconds < 5400) { return 'about ' + Math.ceil(seconds / 60) + ' min'; }
    return 'about ' + (seconds / 3600).toFixed(1) + ' h';
  }
  function count(number) {
    if (Number.isInteger(number)) { return number.toLocaleString('en'); }
    return number.toLocaleString('en', {maximumSignificantDigits: 3});
  }
  function plural(number, word) { return count(number) + ' ' + word + (number === 1 ? '' : 's'); }
  // The database's clock counts, not the browser's.
  function now() { return state.now + (performance.now() - seenAt); }
  function ago(at) {
    const seconds = Math.max(0, (now() - at) / 1000);
    if (seconds < 10) { return 'just now'; }
    if (seconds < 60) { return Math.floor(seconds) + ' s ago'; }
    if (seconds < 3600) { return Math.floor(seconds / 60) + ' min ago'; }
    if (seconds < 86400) { return Math.floor(seconds / 3600) + ' h ago'; }
    return Math.floor(seconds / 86400) + (seconds < 172800 ? ' day ago' : ' days ago');
  }
  function time(at) {
    if (!at) { return null; }
    const date = new Date(at);
    return h('time', {datetime: date.toISOString(), title: date.toLocaleString(), 'data-at': at}, ago(at));
  }
  function pill(name) { return h('span', {class: 'pill', 'data-state': name}, name); }
  function button(text, action, id, strong) {
    return h('button', {
      type: 'button', class: 'button' + (strong ? ' strong' : ''), 'data-key': action + ' ' + (id || ''),
      'aria-label': id ? text + ': ' + id : null, disabled: !token,
      on: {click: function () { ask(action, id || ''); }},
    }, text);
  }
  function draw(id, data, make) {
    const text = JSON.stringify([data, Boolean(token)]);
    if (drawn[id] === text) { return; }
    drawn[id] = text;
    const section = $(id), focused = section.contains(document.activeElement) && document.activeElement.dataset.key;
    const children = data ? make(data) : null;
    section.hidden = !children;
    section.replaceChildren();
    add(section, children);
    if (focused) {
      const again = Array.from(section.querySelectorAll('[data-key]')).find(function (e) { return e.dataset.key === focused; });
      if (again) { again.focus(); }
    }
  }

  // -- sections

  const REASONS = {
    'starting': 'This process has not looked at the database yet.',
    'down': 'Closed by hand.',
    'pending': 'Evolutions are pending and begin in a moment.',
    'running': 'Evolutions run.',
    'failed': 'An evolution failed and does not run again by itself: it needs you.',
    'retrying': 'An evolution failed and is tried again by itself.',
    'cancelled': 'An evolution was cancelled: retry it, or record it as done.',
    'waiting': 'This deployment does not run evolutions itself (mode = wait): it waits until somebody else has.',
    'paused': 'Paused: no evolution begins until somebody resumes.',
    'database-away': 'The database cannot be reached.',
    'database-busy': 'The database is busy: somebody holds a lock.',
    'database-refuses': 'The database refuses what is needed.',
    'predecessor': 'The record of tgext.evolve 0.0.5 cannot be taken over by itself.',
    'other-namespace': 'These evolutions are recorded under another namespace.',
    'unknown-evolutions': 'The history is ahead of this release.',
    'newer-release': 'A newer release evolves the data.',
    'complete': 'All evolutions are done.',
    'failure-ignored': 'An evolution failed, and the application serves all the same (on_failure = open).',
  };
  const SERVED = {
    nothing: 'Closed: visitors get a 503',
    reads: 'Half open: only reads are served',
    everything: 'Open: everything is served',
  };

  function verdict() {
    const gate = state.gate;
    $('verdict').dataset.serving = gate.serving;
    $('verdict').dataset.bad = /failed|cancelled|database|predecessor|other|unknown|ignored/.test(gate.reason) ? 'yes' : 'no';
    draw('verdict', [gate, state.database, state.agrees, state.down, state.paused !== null, state.error], function () {
      const lines = [h('h2', {id: 'verdict-title'}, SERVED[gate.serving])];
      lines.push(h('p', {class: 'lead'}, REASONS[gate.reason] || gate.reason));
      if (state.down) {
        lines.push(h('p', {}, 'By ' + state.down.by + ', ', time(state.down.since), '. To open it again: the button below, or ',
          h('code', {}, 'gearbox evolve up')));
        if (state.down.message) { lines.push(h('blockquote', {}, state.down.message)); }
      } else if (gate.detail && !/^(running|pending|complete)$/.test(gate.reason)) {
        lines.push(h('p', {class: 'detail'}, gate.detail));
      }
      if (state.paused && gate.reason !== 'paused') { lines.push(h('p', {}, 'Paused: no evolution begins until somebody resumes.')); }
      if (state.error) {
        lines.push(h('p', {class: 'detail'}, 'What the history says cannot be shown: ' + state.error.thing + '. ' + state.error.remedy));
      } else if (!state.agrees) {
        lines.push(h('p', {class: 'quiet'}, 'By the database it is ' + state.database.serving + ' (' + state.database.reason +
          '); this process follows as soon as it looks.'));
      }
      return lines;
    });
  }

  function running() {
    const entry = state.running;
    const lease = state.lease;
    draw('running', entry && [entry.id, entry.description, entry.by, entry.tries, lease && lease.cancel === entry.id, Boolean(entry.progress)], function () {
      const cancelled = lease && lease.cancel === entry.id;
      return [
        h('div', {class: 'head'}, h('h2', {id: 'running-title'}, 'Running now'),
          cancelled ? h('p', {class: 'quiet'}, 'asked to end') : button('Cancel…', 'cancel', entry.id)),
        h('p', {class: 'id'}, entry.id), entry.description && h('p', {class: 'description'}, entry.description),
        h('div', {class: 'track big', id: 'bar', role: 'progressbar', 'aria-label': 'Progress of ' + entry.id}, h('div', {class: 'fill'})),
        h('dl', {class: 'facts', id: 'progress'}),
        h('p', {class: 'quiet', id: 'progress-message'}),
      ];
    });
    if (entry) { progress(entry); }
  }
  // How many a second, of what was seen here in the last minute: one that was resumed did not do all of it by now.
  let seen = {mark: null, samples: []};
  function pace(entry) {
    const p = entry.progress, mark = entry.id + ' ' + entry.mark;
    if (!p) { return null; }
    const last = seen.samples[seen.samples.length - 1];
    if (seen.mark !== mark || (last && p.done < last[1])) { seen = {mark: mark, samples: []}; }
    const samples = seen.samples;
    samples.push([state.now / 1000, p.done]);
    while (samples.length > 2 && state.now / 1000 - samples[0][0] > 60) { samples.shift(); }
    const time = state.now / 1000 - samples[0][0], done = p.done - samples[0][1];
    return time >= 3 && done > 0 ? done / time : null;
  }
  function progress(entry) {
    const p = entry.progress, bar = $('bar'), fill = bar.firstChild, facts = [];
    const known = p && typeof p.fraction === 'number';
    bar.dataset.known = known ? 'yes' : 'no';
    if (known) {
      bar.setAttribute('aria-valuenow', Math.floor(p.fraction * 100));
      fill.style.width = p.fraction * 100 + '%';
      facts.push(['done', (p.fraction * 100).toFixed(p.fraction < 0.1 ? 1 : 0) + ' %']);
      facts.push(['of ' + count(p.total), count(p.done)]);
    } else {
      bar.removeAttribute('aria-valuenow');
      fill.style.width = '';
      if (p) { facts.push(['done', count(p.done)]); }
    }
    const rate = pace(entry);
    if (rate) { facts.push(rate >= 1 ? ['per second', count(Number(rate.toPrecision(3)))] : ['each', duration(1 / rate)]); }
    facts.push(['so far', duration(entry.seconds)]);
    if (p && typeof p.remaining === 'number') { facts.push(['left', about(p.remaining)]); }
    if (entry.tries > 1) { facts.push(['attempt', entry.tries]); }
    $('progress').replaceChildren.apply($('progress'), facts.map(function (fact) {
      return h('div', {}, h('dt', {}, fact[0]), h('dd', {}, String(fact[1])));
    }));
    $('progress-message').textContent = p && p.message || (p ? '' : 'It has not reported how far it is.');
  }

  function fault(mark, id) {
    const box = h('pre', {class: 'error', tabindex: '0', 'aria-label': 'Error of ' + id});
    function show(text) { box.textContent = text || 'No error was recorded.'; }
    if (errors.get(mark)) { show(errors.get(mark)); }
    else {
      box.textContent = 'Loading…';
      get('/evolution', {id: id}).then(function (found) {
        const last = (found.attempts || []).find(function (attempt) { return attempt.error; });
        errors.set(mark, last ? last.error : '');
        show(errors.get(mark));
      }).catch(function () { box.textContent = 'The error could not be loaded: reload the page.'; });
    }
    return box;
  }
  function stuck() {
    draw('stuck', state.stuck && state.stuck.length ? state.stuck : null, function (entries) {
      return [h('h2', {id: 'stuck-title'}, 'Needs you', h('span', {class: 'number'}, count(state.stuck_total)))].concat(entries.map(function (entry) {
        const key = 'error ' + entry.mark;
        const details = h('details', {open: entries.length < 4 || opened.has(key), on: {toggle: function (event) {
          if (event.target.open) { opened.add(key); } else { opened.delete(key); }
          if (event.target.open && !details.querySelector('pre')) { details.append(fault(entry.mark, entry.id)); }
        }}}, h('summary', {}, 'What happened'));
        return h('article', {class: 'trouble'},
          h('div', {class: 'head'},
            h('p', {class: 'id'}, entry.id, pill(entry.state)),
            h('div', {class: 'buttons'}, button('Retry…', 'retry', entry.id, true), button('Record as done…', 'stamp', entry.id))),
          entry.description && h('p', {class: 'description'}, entry.description),
          h('p', {class: 'quiet'}, capital(entry.why) + '. ' + plural(entry.tries, 'attempt') + ', the last one ', time(entry.at), ' on ' + entry.by + '.'),
          details);
      }));
    });
  }
  function capital(text) { return text ? text.charAt(0).toUpperCase() + text.slice(1) : ''; }

  function pending() {
    const data = state.pending && state.pending.length ? [state.pending, state.pending_total] : null;
    draw('pending', data, function () {
      return [
        h('h2', {id: 'pending-title'}, 'Up next', h('span', {class: 'number'}, count(state.pending_total))),
        h('ol', {class: 'queue'}, state.pending.map(function (entry) {
          return h('li', {},
            h('div', {class: 'what'}, h('p', {class: 'id'}, entry.id), entry.description && h('p', {class: 'description'}, entry.description),
              h('p', {class: 'quiet'}, capital(entry.why) + ' · ', level(entry.serving))),
            button('Record as done…', 'stamp', entry.id));
        })),
        state.pending_total > state.pending.length && h('p', {class: 'quiet'}, 'and ' + count(state.pending_total - state.pending.length) +
          ' more: see all evolutions below'),
      ];
    });
  }
  function level(serving) {
    return {nothing: 'closes everything', reads: 'reads are served meanwhile', everything: 'runs behind the open gate'}[serving] || '';
  }

  function runs() {
    const data = state.runs && state.runs.length ? state.runs : null;
    draw('runs', data, function () {
      return [h('h2', {id: 'runs-title'}, 'Last runs')].concat(data.map(function (run) {
        const start = run.started, end = Math.max(run.finished || start, start + 1), span = end - start;
        return h('article', {class: 'run'},
          h('p', {class: 'run-head'}, h('strong', {}, 'Run ' + run.token), h('span', {class: 'quiet'}, time(start), ' · ' + run.by +
            (run.attempts_total ? ' · ' + plural(run.attempts_total, 'attempt') + ' in ' + duration(span / 1000) : '')),
            run.holds && pill('running')),
          run.attempts.length ? h('ol', {class: 'lanes'}, run.attempts.map(function (attempt) {
            const from = attempt.started === null ? start : attempt.started, to = attempt.finished === null ? (attempt.state === 'running' && run.holds ? end : from) : attempt.finished;
            const took = attempt.finished === null && !(attempt.state === 'running' && run.holds) ? 'unknown' : duration((to - from) / 1000);
            return h('li', {title: attempt.id + ': ' + attempt.state + ', ' + took},
              h('span', {class: 'lane-id'}, attempt.id),
              h('span', {class: 'lane', 'aria-hidden': 'true'}, h('span', {class: 'block', 'data-state': attempt.state, from: Math.min((from - start) / span, 0.99), share: Math.min((to - from) / span, 1 - (from - start) / span)})),
              h('span', {class: 'took'}, h('span', {class: 'dot', 'data-state': attempt.state}), h('span', {class: 'hear'}, attempt.state + ' '), took));
          })) : null,
          run.attempts_total > run.attempts.length && h('p', {class: 'quiet'}, 'and ' + plural(run.attempts_total - run.attempts.length, 'attempt') + ' before these'),
          run.recorded_total ? h('p', {class: 'quiet recorded'}, pill(run.recorded_as), ' ' + run.recorded.join(', ') +
            (run.recorded_total > run.recorded.length ? ' and ' + count(run.recorded_total - run.recorded.length) + ' more' : '') +
            (run.recorded_as === 'imported' ? ': taken over from 0.0.5' : ': recorded as done, not run')) : null);
      }));
    });
  }

  const ORDER = ['running', 'failed', 'interrupted', 'cancelled', 'pending', 'applied', 'stamped', 'imported', 'done'];
  function counts() {
    draw('counts', state.counts ? [state.counts, state.total] : null, function () {
      const names = ORDER.filter(function (name) { return state.counts[name]; });
      const settled = state.total - state.left;
      return [
        h('h2', {id: 'counts-title'}, 'The plan'),
        state.total ? h('p', {class: 'figure'}, h('strong', {}, count(settled)), ' of ' + count(state.total) + ' done') : h('p', {class: 'quiet'}, 'There are no evolutions.'),
        state.total ? h('div', {class: 'track stack', 'aria-hidden': 'true'}, names.slice().reverse().map(function (name) {
          return h('span', {class: 'block', 'data-state': name, share: state.counts[name] / state.total});
        })) : null,
        h('ul', {class: 'legend'}, names.map(function (name) {
          return h('li', {}, h('span', {class: 'dot', 'data-state': name}), h('span', {}, name), h('span', {class: 'right'}, count(state.counts[name])));
        })),
        h('p', {class: 'quiet small'}, state.store),
      ];
    });
  }
  function lease() {
    const l = state.lease;
    draw('lease', l === undefined ? null : [l && l.alive, l && l.by, l && l.token], function () {
      if (!l) { return [h('h2', {id: 'lease-title'}, 'The lease'), h('p', {class: 'quiet'}, 'Nobody ever held it.')]; }
      const rows = [['Token', String(l.token)], [l.alive ? 'Held by' : 'Last held by', l.by]];
      return [
        h('h2', {id: 'lease-title'}, 'The lease'),
        h('p', {class: 'figure'}, h('strong', {}, l.alive ? 'Held' : 'Free')),
        l.alive ? h('div', {class: 'track', 'aria-hidden': 'true'}, h('div', {class: 'fill', id: 'lease-bar'})) : null,
        h('p', {class: 'quiet', id: 'lease-left'}),
        h('dl', {class: 'rows'}, rows.map(function (row) { return h('div', {}, h('dt', {}, row[0]), h('dd', {}, row[1])); })),
      ];
    });
    tick();
  }
  function control() {
    if (state.error) { draw('control', null); return; }
    draw('control', [Boolean(state.paused), Boolean(state.down), state.why_no_actions], function () {
      return [
        h('h2', {id: 'control-title'}, 'By hand'),
        state.why_no_actions ? h('p', {class: 'warn'}, state.why_no_actions) : null,
        h('div', {class: 'buttons'},
          state.paused ? button('Resume…', 'resume', '', true) : button('Pause…', 'pause'),
          state.down ? button('Open the gate…', 'up', '', true) : button('Close the gate…', 'down')),
        h('p', {class: 'quiet small'}, state.paused ? 'No evolution begins until you resume.' : 'Pausing keeps evolutions from beginning; closing the gate answers 503 everywhere.'),
      ];
    });
  }
  function unknown() {
    const any = (state.unknown_total || 0) + (state.changed_total || 0);
    draw('unknown', any ? [state.unknown.map(function (e) { return [e.id, e.state]; }), state.unknown_total, state.changed, state.changed_total] : null, function () {
      const parts = [h('h2', {id: 'unknown-title'}, 'Worth knowing')];
      if (state.unknown_total) {
        parts.push(h('p', {}, plural(state.unknown_total, 'evolution') + ' in the history that this release does not know:'));
        parts.push(h('ul', {class: 'names'}, state.unknown.map(function (entry) { return h('li', {}, h('span', {class: 'id'}, entry.id), pill(entry.state)); })));
      }
      if (state.changed_total) {
        parts.push(h('p', {}, plural(state.changed_total, 'evolution') + ' whose code changed since it ran (that runs nothing again):'));
        parts.push(h('ul', {class: 'names'}, state.changed.map(function (id) { return h('li', {}, h('span', {class: 'id'}, id)); })));
      }
      return parts;
    });
  }
  function tick() {
    if (!state || state.now === undefined) { return; }
    document.querySelectorAll('time[data-at]').forEach(function (each) { each.textContent = ago(Number(each.dataset.at)); });
    const l = state.lease, line = $('lease-left');
    if (!l || !line) { return; }
    const left = l.left - (performance.now() - seenAt) / 1000;
    if (l.alive) {
      line.textContent = left > 0 ? 'Expires in ' + Math.ceil(left) + ' s unless it is renewed' : 'Expired: about to be taken over';
      const bar = $('lease-bar');
      if (bar) { bar.style.width = Math.max(0, Math.min(1, left / l.seconds)) * 100 + '%'; }
    } else { line.textContent = 'Nobody runs anything.'; }
  }

  // -- all evolutions, a page at a time

  let wanted = 0, listed = null;
  function row(entry) {
    const body = h('div', {class: 'body'});
    const details = h('details', {class: 'row', on: {toggle: function () {
      if (details.open && !body.firstChild) { fillRow(entry, body); }
    }}}, h('summary', {}, h('span', {class: 'id'}, entry.id), pill(entry.state), h('span', {class: 'took'}, duration(entry.seconds))), body);
    return details;
  }
  function fillRow(entry, body) {
    body.textContent = 'Loading…';
    get('/evolution', {id: entry.id}).then(function (found) {
      body.replaceChildren();
      const facts = [['Why', found.why], ['Serving', found.serving && level(found.serving)], ['Transactional', found.transactional === null ? '' : found.transactional ? 'yes' : 'no'],
        ['Depends on', found.depends_on.join(', ')], ['Replaces', found.replaces.join(', ')], ['Code', found.changed ? 'changed since it ran' : ''], ['Written in', found.origin]];
      add(body, [
        found.description && h('p', {class: 'description'}, found.description),
        h('dl', {class: 'rows'}, facts.filter(function (f) { return f[1]; }).map(function (f) { return h('div', {}, h('dt', {}, f[0]), h('dd', {}, f[1])); })),
        found.state === 'pending' || found.state === 'failed' || found.state === 'cancelled' || found.state === 'interrupted' ?
          h('div', {class: 'buttons'}, button('Retry…', 'retry', found.id), button('Record as done…', 'stamp', found.id)) : null,
        found.attempts.length ? h('ol', {class: 'attempts'}, found.attempts.map(function (attempt) {
          return h('li', {}, h('p', {}, pill(attempt.state), ' attempt ' + attempt.attempt + ' · ' + attempt.by + ' · ', time(attempt.finished || attempt.started),
            attempt.finished && attempt.started && attempt.finished > attempt.started ? ' · ' + duration((attempt.finished - attempt.started) / 1000) : '', attempt.forgiven ? ' · no longer counts' : ''),
            attempt.error && h('pre', {class: 'error', tabindex: '0', 'aria-label': 'Error of attempt ' + attempt.attempt}, attempt.error));
        })) : h('p', {class: 'quiet'}, 'It never ran.'),
      ]);
    }).catch(function () { body.textContent = 'This could not be loaded.'; });
  }
  function list(start) {
    const mine = ++wanted;
    get('/plan', {text: $('all-text').value, state: $('all-state').value, start: start}).then(function (page) {
      if (mine !== wanted) { return; }
      if (!start) { $('all-list').replaceChildren(); }
      add($('all-list'), page.entries.map(row));
      $('all-found').textContent = plural(page.found, 'evolution');
      listed = page.more;
      $('all-more').hidden = listed === null;
    }).catch(function () { if (mine === wanted) { $('all-found').textContent = 'The list could not be loaded.'; } });
  }
  let typing = null;
  $('all-details').addEventListener('toggle', function () { if ($('all-details').open) { list(0); } });
  $('all-text').addEventListener('input', function () { clearTimeout(typing); typing = setTimeout(function () { list(0); }, 200); });
  $('all-state').addEventListener('change', function () { list(0); });
  $('all-more').addEventListener('click', function () { if (listed !== null) { list(listed); } });

  // -- acting

  function watch() { return state.watch ? 'within ' + duration(state.watch).replace('.0', '') : 'when it is started again (watch = 0)'; }
  const QUESTIONS = {
    retry: ['Retry this evolution?', function () { return 'Its attempts so far no longer count, and it runs again at once, in whichever process takes the lease. If it is not transactional, what it saved before it failed is still there.'; }, 'Retry'],
    stamp: ['Record this evolution as done?', function (id) { return 'It does not run. Everything that waits for it goes on as if its work were done. To take it back: gearbox evolve unstamp ' + id; }, 'Record as done'],
    cancel: ['Cancel this evolution?', function () { return 'It ends at its next report of progress, is recorded as cancelled, and what waits for it stays closed until you retry it or record it as done.'; }, 'Cancel it'],
    pause: ['Pause all evolutions?', function () { return 'No evolution begins, in any process. What runs goes on to its end; a batched one stops after its batch. What is closed because of something pending stays closed.'; }, 'Pause'],
    resume: ['Resume?', function () { return 'What is pending begins at once.'; }, 'Resume'],
    down: ['Close the gate?', function () {
      return 'Every process of ' + state.namespace + ' answers 503 to visitors, ' + watch() + ', until somebody opens it again. ' +
        (state.has_secret ? 'You come back to this page with the bypass secret, entered at ' + enter + '.' :
          'You lose this page too, as no tgext.evolve.bypass_secret is set: to open the gate again, type gearbox evolve up.');
    }, 'Close the gate'],
    up: ['Open the gate?', function () { return 'Every process serves again what the evolutions allow, ' + watch() + '.'; }, 'Open the gate'],
  };
  let asked = null;
  function ask(action, id) {
    const question = QUESTIONS[action];
    asked = {action: action, id: id};
    $('ask-title').textContent = question[0];
    $('ask-id').textContent = id;
    $('ask-id').hidden = !id;
    $('ask-text').textContent = question[1](id);
    $('ask-yes').textContent = question[2];
    $('ask-message').hidden = action !== 'down';
    $('ask-message-text').value = '';
    $('ask').showModal();
    $('ask-no').focus();
  }
  $('ask-no').addEventListener('click', function () { $('ask').close(); });
  $('ask-yes').addEventListener('click', function () {
    const form = new URLSearchParams({action: asked.action, id: asked.id, message: $('ask-message-text').value});
    $('ask').close();
    say('Working…', 'busy');
    fetch(base + '/act', {method: 'POST', body: form, headers: {'X-Evolve-Token': token, Accept: 'application/json'}, cache: 'no-store', redirect: 'manual', credentials: 'same-origin'})
      .then(read).then(function (answer) {
        if (answer.ok) { say(answer.message, 'good'); }
        else { say((answer.error || 'It was refused.') + (answer.remedy ? ' ' + answer.remedy : ''), 'bad'); }
      }).catch(function (error) { say(typeof error === 'string' ? error : 'The server does not answer: nothing is known to have happened.', 'bad'); })
      .then(function () {
        if ($('all-details').open) { list(0); }
        return look();
      });
  });
  let quiet = null;
  function say(text, kind) {
    clearTimeout(quiet);
    $('said').textContent = text;
    $('said').dataset.kind = kind;
    if (kind !== 'busy') { quiet = setTimeout(function () { $('said').textContent = ''; }, kind === 'bad' ? 20000 : 8000); }
  }

  // -- looking

  function read(response) {
    if (response.type === 'opaqueredirect' || response.status === 401) { throw 'You are not logged in any more: reload this page.'; }
    return response.json().catch(function () { return {}; }).then(function (answer) {
      if (typeof answer.ok === 'boolean') { return answer; }
      if (response.status === 503) { throw 'closed'; }
      if (response.status === 403) { throw 'You may not see this any more.'; }
      throw 'The server answered ' + response.status + '.';
    });
  }
  function get(path, parameters) {
    const query = parameters ? '?' + new URLSearchParams(parameters) : '';
    return fetch(base + path + query, {headers: {Accept: 'application/json'}, cache: 'no-store', redirect: 'manual', credentials: 'same-origin'}).then(read);
  }
  function pulse(kind, text) { $('pulse').dataset.state = kind; $('pulse-text').textContent = text; }
  function notice(nodes) {
    $('notices').replaceChildren();
    if (nodes) { add($('notices'), h('div', {class: 'card notice', role: 'alert'}, nodes)); }
  }
  let noticed = '';
  function trouble(error) {
    const text = typeof error === 'string' ? error : 'The server does not answer; it is asked again.';
    pulse('bad', 'not live');
    if (noticed === text) { return; }
    noticed = text;
    if (text !== 'closed') { notice(h('p', {}, text)); return; }
    notice(h('p', {}, 'The gate has closed, for you as well. ', enter ? h('a', {href: enter}, 'Enter the bypass secret') :
      'No tgext.evolve.bypass_secret is set, so this page comes back when the gate opens.'));
  }
  function look() {
    clearTimeout(timer);
    if (busy) { return Promise.resolve(); }
    busy = true;
    return get('/state').then(function (found) {
      state = found;
      seenAt = performance.now();
      token = found.token;
      pulse(found.error ? 'bad' : 'good', found.error ? 'database away' : 'live');
      if (noticed) { noticed = ''; notice(null); }
      verdict();
      running(); stuck(); pending(); runs(); counts(); lease(); control(); unknown();
      $('all').hidden = Boolean(found.error);
      $('main').setAttribute('aria-busy', 'false');
      return found.pause;
    }).catch(function (error) { trouble(error); return 3; }).then(function (pause) {
      busy = false;
      clearTimeout(timer);
      if (!document.hidden) { timer = setTimeout(look, pause * 1000); }
    });
  }
  document.addEventListener('visibilitychange', function () { if (!document.hidden) { look(); } });
  $('no-script').remove();
  setInterval(tick, 500);
  look();
})();
