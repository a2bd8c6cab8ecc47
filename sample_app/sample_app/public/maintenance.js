// Shows how far the evolutions are, and goes to the page that was asked for when they are done.
(function () {
  'use strict';
  var page = document.body.dataset;
  var bar = document.querySelector('progress');
  var line = document.querySelector('[role=status]');

  function show(progress) {
    if (progress && progress.fraction !== null) {
      bar.value = progress.fraction;
      line.textContent = progress.done + ' of ' + progress.total;
    } else {
      bar.removeAttribute('value');  // moves to and fro: nobody knows how long
      line.textContent = '\u00a0';
    }
  }

  function arrive() {
    if (page.sent === 'yes') {
      // Sending it again is for the visitor to decide.
      bar.hidden = true;
      line.textContent = 'The wiki is back.';
    } else {
      location.reload();
    }
  }

  function look() {
    fetch(page.status, {cache: 'no-store'})
      .then(function (response) { return response.json(); })
      .then(function (status) {
        if (status.serving !== 'nothing') { arrive(); return; }
        show(status.progress);
        setTimeout(look, 1000);
      })
      .catch(function () {
        line.textContent = 'The server does not answer; still trying.';
        setTimeout(look, 3000);
      });
  }

  look();
})();
