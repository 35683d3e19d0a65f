'use strict';
(() => {
  const dark = matchMedia('(prefers-color-scheme: dark)');
  const colour = name => getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim();
  const coarse = matchMedia('(pointer: coarse)').matches;

  /* the charts, in the colours of the page */
  const element = document.getElementById('curves-data');
  if (element) {
    const {charts, words} = JSON.parse(element.textContent);
    const styles = {
      steps: {line: {width: 1}, opacity: 0.28, colour: 'blue'}, train: {line: {width: 2.25}, colour: 'blue'},
      val: {line: {width: 2.25}, colour: 'orange'}, lr: {line: {width: 2.25}, colour: 'violet'},
    };
    const trace = (series, name) => {
      const {line, opacity = 1, colour: of} = styles[series.role];
      const few = series.role !== 'steps' && series.x.length < 25;
      const format = name === 'accuracy' ? '%{y:.1f} %' : '%{y:.4g}';
      return {x: series.x, y: series.y, name: words[series.name], type: 'scatter', mode: few ? 'lines+markers' : 'lines',
              line: {...line, color: colour(of)}, marker: {size: 6, color: colour(of)}, opacity,
              hovertemplate: format, hoverinfo: series.role === 'steps' ? 'skip' : undefined};
    };
    const draw = name => {
      const {series, range, majority} = charts[name];
      const host = document.getElementById('chart-' + name);
      const traces = series.map(one => trace(one, name));
      if (name === 'loss') traces[0].hovertemplate = undefined;
      const end = Math.max(...series.flatMap(one => one.x));
      if (majority) {
        traces.push({x: [0, end], y: [majority, majority], name: words.majority, mode: 'lines', hoverinfo: 'skip',
                     line: {width: 1.25, dash: 'dot', color: colour('soft')}});
      }
      const axis = {gridcolor: colour('line'), zeroline: false, linecolor: colour('line'), ticks: '', automargin: true,
                    fixedrange: coarse, spikethickness: 1, spikedash: 'dot', spikecolor: colour('soft'), tickfont: {color: colour('soft')}};
      Plotly.react(host, traces, {
        autosize: true, margin: {l: 46, r: 8, t: 8, b: 44}, hovermode: 'x unified', dragmode: coarse ? false : 'zoom',
        paper_bgcolor: 'rgba(0,0,0,0)', plot_bgcolor: 'rgba(0,0,0,0)', showlegend: false,
        font: {family: getComputedStyle(document.body).fontFamily, size: 13, color: colour('ink')},
        hoverlabel: {bgcolor: colour('card'), bordercolor: colour('line'), font: {color: colour('ink')}},
        xaxis: {...axis, showgrid: false, range: [0, end * 1.005], title: {text: words.epoch, standoff: 8, font: {size: 12, color: colour('soft')}},
                hoverformat: '.4~g', unifiedhovertitle: {text: words.epoch + ' %{x}'}},
        yaxis: {...axis, range, rangemode: name === 'lr' ? 'tozero' : 'normal', tickformat: name === 'lr' ? '~g' : undefined,
                exponentformat: 'power'},
      }, {responsive: true, displayModeBar: false, doubleClick: 'reset'});
    };
    const all = () => Object.keys(charts).forEach(draw);
    all();
    dark.addEventListener('change', all);
    addEventListener('beforeprint', () => Object.keys(charts).forEach(name => Plotly.Plots.resize('chart-' + name)));
  }

  /* contents: closed on a phone; the section that is read is marked */
  const contents = document.querySelector('.contents details');
  const beside = matchMedia('(min-width: 68rem)');
  const arrange = () => { contents.open = beside.matches; };
  arrange();
  beside.addEventListener('change', arrange);
  const links = new Map([...document.querySelectorAll('.contents a')].map(link => [link.hash.slice(1), link]));
  const seen = new Set();
  const observer = new IntersectionObserver(entries => {
    entries.forEach(({target, isIntersecting}) => seen[isIntersecting ? 'add' : 'delete'](target.id));
    const current = [...links.keys()].find(id => seen.has(id));
    links.forEach((link, id) => id === current ? link.setAttribute('aria-current', 'true') : link.removeAttribute('aria-current'));
  }, {rootMargin: '-15% 0px -60% 0px'});
  links.forEach((_, id) => observer.observe(document.getElementById(id)));

  /* all is printed */
  addEventListener('beforeprint', () => document.querySelectorAll('main details').forEach(one => { one.open = true; }));
})();
