(function () {
  var status = document.currentScript.getAttribute('data-status');
  var again = document.currentScript.getAttribute('data-again') === 'yes';
  var track = document.getElementById('track'), bar = document.getElementById('bar');
  var about = document.getElementById('about'), pause = 1000;
  function words(seconds) {
    if (seconds < 10) { return 'a few seconds'; }
    if (seconds < 90) { return 'about ' + Math.ceil(seconds / 10) * 10 + ' seconds'; }
    if (seconds < 5400) { return 'about ' + Math.ceil(seconds / 60) + ' minutes'; }
    return 'about ' + Math.ceil(seconds / 3600) + ' hours';
  }
  function show(state) {
    var progress = state.progress;
    if (progress && typeof progress.fraction === 'number') {
      var percent = Math.floor(progress.fraction * 100);
      track.setAttribute('data-known', 'yes');
      track.setAttribute('aria-valuenow', percent);
      bar.style.transform = 'scaleX(' + progress.fraction + ')';
      var text = percent + ' %';
      if (typeof progress.remaining === 'number') { text += ', ' + words(progress.remaining) + ' left'; }
      if (about.textContent !== text) { about.textContent = text; }
    } else {
      track.setAttribute('data-known', 'no');
      track.removeAttribute('aria-valuenow');
      bar.style.transform = '';
    }
  }
  function open() {
    if (again) { location.reload(); return; }
    // What was sent is not sent again behind the user's back.
    about.textContent = 'We are back. What you sent was not saved: please go back and send it again.';
    track.hidden = true;
  }
  function look() {
    fetch(status, {cache: 'no-store', headers: {Accept: 'application/json'}})
      .then(function (response) { return response.json(); })
      .then(function (state) {
        if (state.serving === 'everything' || (again && state.serving === 'reads')) { open(); return; }
        show(state);
        pause = 1000;
        setTimeout(look, pause);
      })
      .catch(function () { pause = Math.min(pause * 2, 10000); setTimeout(look, pause); });
  }
  setTimeout(look, 500);
})();
