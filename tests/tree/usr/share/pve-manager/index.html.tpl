<!DOCTYPE html>
<html>
  <head>
    <meta charset="utf-8">
    <title>[% nodename %] - a small stand-in for the tests of pve-diff-backup</title>
    [%- IF langfile %]
    <script type="text/javascript" src="/pve2/locale/pve-lang-[% lang %].js?ver=[% version %]"></script>
    [%- ELSE %]
    <script type="text/javascript">function gettext(text) { return text; }</script>
    [%- END %]
    <script type="text/javascript" src="/pve2/js/pvemanagerlib.js?ver=[% version %]"></script>
    <script type="text/javascript" src="/pve2/ext6/locale/locale-[% lang %].js"></script>
  </head>
  <body></body>
</html>
